//! Settings as raw text: the list of settings, where each value comes from, and how an error names a setting.
//!
//! `default.toml` is the only list of settings. Names, defaults and help texts are read from it, so that the file,
//! the environment variables and the flags always agree.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use strsim::levenshtein;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::mask;
use super::service_link::is_service_link;
use crate::model::named;

/// The commented defaults, ready to be copied by a user.
pub const DEFAULT_TOML: &str = include_str!("default.toml");

/// Prefix of the environment variables.
pub const ENV_PREFIX: &str = "SIDECACHE_";

/// The variable that names a settings file, like `--config`; not a setting itself.
pub const CONFIG_VARIABLE: &str = "SIDECACHE_CONFIG";

/// The variable that names the service for the commands, like `--url`; not a setting either.
pub const URL_VARIABLE: &str = "SIDECACHE_URL";

/// The variable that names a file of defaults, which an image or a package brings. Every setting of the user
/// overrides it.
pub const DEFAULTS_VARIABLE: &str = "SIDECACHE_DEFAULTS";

/// The variable that must be `yes` before a release build accepts `test_without`.
pub const WRONG_ANSWERS_VARIABLE: &str = "SIDECACHE_ANSWERS_MAY_BE_WRONG";

/// Variables with the prefix that are not settings.
const OTHER_VARIABLES: [&str; 4] = [CONFIG_VARIABLE, URL_VARIABLE, DEFAULTS_VARIABLE, WRONG_ANSWERS_VARIABLE];

/// A setting that exists.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: String,
    pub help: String,
    pub default: String,
}

impl Setting {
    /// `SIDECACHE_L1_MAX_MB`.
    pub fn variable(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.to_uppercase())
    }

    /// `l1-max-mb`, without the leading dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }
}

/// A wrong setting: one line that names the setting the way the user gave it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {reason}")]
pub struct Error {
    pub origin: String,
    pub reason: String,
}

impl Error {
    fn new(origin: impl Into<String>, reason: impl Display) -> Self {
        // The message must stay on one line, even if a library's message does not.
        let reason = reason.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        Self { origin: origin.into(), reason }
    }

    /// The error for a flag that is given twice on the command line.
    pub fn given_twice(flag: &str) -> Self {
        Self::new(flag, "given more than once")
    }
}

/// Every setting, in the order of the file.
pub fn all() -> &'static [Setting] {
    static ALL: LazyLock<Vec<Setting>> = LazyLock::new(|| {
        let table = DeTable::parse(DEFAULT_TOML).expect("a test parses default.toml").into_inner();
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        entries.into_iter().map(|(name, default)| setting(&name, &default)).collect()
    });
    &ALL
}

/// The help is the comment right above the setting.
fn setting(name: &Spanned<DeString>, default: &Spanned<DeValue>) -> Setting {
    let above = &DEFAULT_TOML[..name.span().start];
    let comment = above.rsplit("\n\n").next().unwrap_or_default();
    let help: Vec<&str> = comment.lines().map(|line| line.trim_start_matches('#').trim()).collect();
    let default = default.get_ref().as_str().unwrap_or(&DEFAULT_TOML[default.span()]);
    Setting { name: name.get_ref().to_string(), help: help.join(" "), default: default.to_owned() }
}

/// The value of every setting, and where it comes from.
#[derive(Debug)]
pub struct Settings {
    values: BTreeMap<String, Value>,
    /// Environment variables that look like settings but are set by Kubernetes.
    pub(super) ignored: Vec<String>,
    /// Whether a release build may accept `test_without`, see [`WRONG_ANSWERS_VARIABLE`].
    pub(super) answers_may_be_wrong: bool,
}

#[derive(Debug)]
struct Value {
    text: String,
    layer: Layer,
    /// The name under which the user finds it: `SIDECACHE_LISTEN`, `--listen`, `file.toml: listen`.
    origin: String,
}

named! {
    /// Where a value comes from. Later layers override earlier ones.
    Layer {
        Default = "default",
        /// The file of [`DEFAULTS_VARIABLE`].
        Package = "package",
        File = "file",
        Environment = "environment",
        Flag = "flag",
    }
}

/// The effective value of a setting, for display.
#[derive(Debug)]
pub struct Effective {
    pub setting: &'static Setting,
    /// Secrets are masked.
    pub text: String,
    pub layer: Layer,
    pub origin: String,
}

impl Effective {
    /// Whether the value equals the default, wherever it was set. Numbers are compared as numbers.
    pub fn is_default(&self) -> bool {
        let (given, default) = (self.text.trim(), &*self.setting.default);
        let number = |text: &str| text.parse::<f64>().ok();
        given == default || number(given).is_some_and(|given| number(default) == Some(given))
    }
}

impl Settings {
    /// Layers the defaults, the file in [`DEFAULTS_VARIABLE`], the user's file, the environment and the flags.
    ///
    /// `environment` may contain unrelated variables; `flags` are pairs of setting name and value.
    ///
    /// # Errors
    /// A file cannot be read, or a setting is unknown.
    pub fn gather(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let environment: Vec<(String, String)> = environment.into_iter().collect();
        let package = environment.iter().find(|(variable, path)| variable == DEFAULTS_VARIABLE && !path.is_empty());
        let mut settings = Self::defaults();
        for (layer, path) in [(Layer::Package, package.map(|(_, path)| Path::new(path))), (Layer::File, file)] {
            if let Some(path) = path {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|error| Error::new(&*shown, error))?;
                settings.add_toml(layer, &shown, &text)?;
            }
        }
        settings.add_environment(environment)?;
        settings.add_flags(flags);
        Ok(settings)
    }

    /// Like [`Settings::gather`], without a package's file, and with the file already read: its name and its text.
    ///
    /// # Errors
    /// The text is not TOML, or a setting is unknown.
    pub fn layer(
        file: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, Error> {
        let mut settings = Self::defaults();
        if let Some((shown, text)) = file {
            settings.add_toml(Layer::File, shown, text)?;
        }
        settings.add_environment(environment)?;
        settings.add_flags(flags);
        Ok(settings)
    }

    fn defaults() -> Self {
        let values = all().iter().map(|setting| {
            let (text, origin) = (setting.default.clone(), setting.variable());
            (setting.name.clone(), Value { text, layer: Layer::Default, origin })
        });
        Self { values: values.collect(), ignored: Vec::new(), answers_may_be_wrong: false }
    }

    fn add_toml(&mut self, layer: Layer, shown: &str, text: &str) -> Result<(), Error> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let place = error.span().map_or(String::new(), |span| place(text, span.start));
            Error::new(format!("{shown}{place}"), error.message())
        })?;
        for (name, value) in table {
            let origin = format!("{shown}: {name}");
            if !self.values.contains_key(&name) {
                return Err(unknown(origin, &name, all().iter().map(|setting| setting.name.clone())));
            }
            let text = match value {
                toml::Value::String(text) => text,
                toml::Value::Integer(number) => number.to_string(),
                toml::Value::Float(number) => number.to_string(),
                toml::Value::Boolean(switch) => switch.to_string(),
                _ => return Err(Error::new(origin, "expected a string, a number, true or false")),
            };
            self.values.insert(name, Value { text, layer, origin });
        }
        Ok(())
    }

    fn add_environment(&mut self, environment: impl IntoIterator<Item = (String, String)>) -> Result<(), Error> {
        for (variable, text) in environment {
            if variable == WRONG_ANSWERS_VARIABLE {
                self.answers_may_be_wrong = text == "yes";
            }
            let Some(name) = variable.strip_prefix(ENV_PREFIX) else { continue };
            if OTHER_VARIABLES.contains(&&*variable) {
                continue;
            }
            if let Some(setting) = all().iter().find(|setting| setting.variable() == variable) {
                self.values.insert(setting.name.clone(), Value { text, layer: Layer::Environment, origin: variable });
            } else if is_service_link(name, &text) {
                self.ignored.push(variable);
            } else {
                return Err(unknown(variable.clone(), &variable, all().iter().map(Setting::variable)));
            }
        }
        self.ignored.sort();
        Ok(())
    }

    fn add_flags(&mut self, flags: impl IntoIterator<Item = (String, String)>) {
        for (name, text) in flags {
            let origin = format!("--{}", name.replace('_', "-"));
            self.values.insert(name, Value { text, layer: Layer::Flag, origin });
        }
    }

    /// The effective value of every setting, in the order of the file, with secrets masked.
    pub fn effective(&self) -> Vec<Effective> {
        let effective = all().iter().map(|setting| {
            let Value { text, layer, origin } = self.value(&setting.name);
            let text = mask::masked(&setting.name, text);
            Effective { text, layer: *layer, origin: origin.clone(), setting }
        });
        effective.collect()
    }

    /// The value of the setting `name`. Panics if there is no such setting: names come only from this program's own
    /// code, and every name is used at every start and in the tests of `config`.
    fn value(&self, name: &str) -> &Value {
        self.values.get(name).unwrap_or_else(|| panic!("default.toml lists the setting `{name}`"))
    }

    /// The text of a setting.
    pub fn text(&self, name: &str) -> &str {
        &self.value(name).text
    }

    /// Whether nobody set it.
    pub fn is_default(&self, name: &str) -> bool {
        self.value(name).layer == Layer::Default
    }

    /// An error about a setting, named the way the user gave it.
    pub fn error(&self, name: &str, reason: impl Display) -> Error {
        Error::new(&*self.value(name).origin, reason)
    }

    /// What `parse` makes of a setting's text. `expected` describes the valid texts.
    ///
    /// # Errors
    /// `parse` returned `None`.
    pub fn parse<T>(&self, name: &str, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Error> {
        let text = self.text(name);
        parse(text).ok_or_else(|| self.error(name, format!("expected {expected}, not {text:?}")))
    }

    /// Like [`Settings::parse`], without the spaces around the text; `None` if nothing is left.
    ///
    /// # Errors
    /// `parse` returned `None`.
    pub fn optional<T>(
        &self,
        name: &str,
        expected: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        match self.text(name).trim() {
            "" => Ok(None),
            text => self.parse(name, expected, |_| parse(text)).map(Some),
        }
    }

    /// A whole number within `range`.
    ///
    /// # Errors
    /// Not a whole number, or out of range.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<u64, Error> {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        self.parse(name, &expected, |text| text.trim().parse().ok().filter(|number| range.contains(number)))
    }

    /// Like [`Settings::number`], for what is counted in memory.
    ///
    /// # Errors
    /// Not a whole number, or out of range.
    pub fn size(&self, name: &str, range: RangeInclusive<usize>) -> Result<usize, Error> {
        let (low, high) = range.into_inner();
        self.number(name, low as u64..=high as u64).map(|number| number as usize)
    }

    /// A number of milliseconds within `range`.
    ///
    /// # Errors
    /// Not a whole number, or out of range.
    pub fn millis(&self, name: &str, range: RangeInclusive<u64>) -> Result<Duration, Error> {
        self.number(name, range).map(Duration::from_millis)
    }

    /// # Errors
    /// Neither `true` nor `false`.
    pub fn switch(&self, name: &str) -> Result<bool, Error> {
        self.parse(name, "true or false", |text| text.trim().parse().ok())
    }
}

/// The line and column of a byte, counted from 1, in the form that editors and compilers use.
fn place(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    format!(":{}:{}", before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn unknown(origin: String, name: &str, known: impl Iterator<Item = String>) -> Error {
    let nearest = known.min_by_key(|candidate| levenshtein(candidate, name));
    let reason = match nearest {
        Some(nearest) if levenshtein(&nearest, name) <= name.trim_start_matches(ENV_PREFIX).len() / 3 => {
            format!("unknown setting, did you mean {nearest}?")
        }
        _ => "unknown setting".to_owned(),
    };
    Error::new(origin, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn every_setting_has_a_help_text_and_the_file_parses() {
        let table: toml::Table = DEFAULT_TOML.parse().unwrap();
        let settings = all();
        assert_eq!(settings.len(), table.len());
        for setting in settings {
            assert!(table.contains_key(&setting.name) && setting.help.len() > 10, "{setting:?}");
        }
    }

    #[test]
    fn the_later_layer_wins() {
        let file = file("l1_max_mb = 1\nmax_staleness_ms = 1\nlisten = \"[::1]:1\"");
        let environment = pairs(&[("SIDECACHE_L1_MAX_MB", "2"), ("SIDECACHE_MAX_STALENESS_MS", "2"), ("HOME", "/")]);
        let settings = Settings::gather(Some(file.path()), environment, pairs(&[("l1_max_mb", "3")])).unwrap();
        let texts = ["l1_max_mb", "max_staleness_ms", "listen", "redis_timeout_ms"].map(|name| settings.text(name));
        assert_eq!(texts, ["3", "2", "[::1]:1", "250"]);
        assert!(settings.error("l1_max_mb", "x").origin == "--l1-max-mb");
    }

    #[test]
    fn regression_a_users_file_beats_the_defaults_of_an_image() {
        // The image set its address in the environment, so a mounted file could not change it.
        let (image, user) = (file("listen = \"0.0.0.0:1\"\nl1_max_mb = 1"), file("listen = \"[::1]:2\""));
        let listen = |user: Option<&Path>, variables: &[(&str, &str)]| {
            let defaults = (DEFAULTS_VARIABLE, image.path().to_str().unwrap());
            let environment: Vec<_> = variables.iter().copied().chain([defaults]).collect();
            let settings = Settings::gather(user, pairs(&environment), []).unwrap();
            (settings.text("listen").to_owned(), settings.text("l1_max_mb").to_owned())
        };
        let is = |address: &str| (address.to_owned(), "1".to_owned());
        assert_eq!(listen(None, &[]), is("0.0.0.0:1"));
        assert_eq!(listen(Some(user.path()), &[]), is("[::1]:2"));
        assert_eq!(listen(Some(user.path()), &[("SIDECACHE_LISTEN", "[::1]:3")]), is("[::1]:3"));
    }

    #[test]
    fn what_is_in_force_tells_where_it_comes_from() {
        let file = file("l1_max_mb = 1\nlog = \"warn\"");
        let environment = pairs(&[("SIDECACHE_L1_MAX_MB", "2"), ("SIDECACHE_URL", "http://elsewhere")]);
        let settings = Settings::gather(Some(file.path()), environment, pairs(&[("workers", "3")])).unwrap();
        let effective = settings.effective();
        assert_eq!(effective.len(), all().len());
        for (name, text, layer) in [
            ("l1_max_mb", "2", Layer::Environment),
            ("log", "warn", Layer::File),
            ("workers", "3", Layer::Flag),
            ("listen", "127.0.0.1:8080", Layer::Default),
        ] {
            let found = effective.iter().find(|one| one.setting.name == name).unwrap();
            assert_eq!((&*found.text, found.layer), (text, layer), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_the_one_that_was_meant() {
        let error = Settings::gather(None, pairs(&[("SIDECACHE_L1_MAXMB", "1")]), []).unwrap_err();
        assert_eq!(error.to_string(), "SIDECACHE_L1_MAXMB: unknown setting, did you mean SIDECACHE_L1_MAX_MB?");
        let file = file("lisen = 1");
        let error = Settings::gather(Some(file.path()), [], []).unwrap_err().to_string();
        assert!(error.ends_with(": lisen: unknown setting, did you mean listen?"), "{error}");
    }

    #[test]
    fn errors_are_one_line() {
        let file = file("l1_max_mb = = 3");
        let error = Settings::gather(Some(file.path()), [], []).unwrap_err().to_string();
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}
