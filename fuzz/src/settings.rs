//! A file of settings: it must have the same effect as the environment, and an error must be one line.

use sidecache::config::{Config, Settings, all_settings};

const FILE: &str = "sidecache.toml";

pub fn check(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else { return };
    // A database in memory, which creates no file.
    let flags = [("database_url".to_owned(), "sqlite::memory:".to_owned())];
    let from_file = match Settings::layer(Some((FILE, text)), [], flags.clone()) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(error.origin.starts_with(FILE), "{error}");
            assert_eq!(error.reason.lines().count(), 1, "{error}");
            return;
        }
    };
    let known = all_settings();
    let given = known.iter().filter(|setting| !from_file.is_default(&setting.name));
    let environment = given.map(|setting| (setting.variable(), from_file.text(&setting.name).to_owned()));
    let from_environment = Settings::layer(None, environment, flags).expect("they are settings");
    match (Config::parse(&from_file), Config::parse(&from_environment)) {
        (Ok(one), Ok(other)) => assert_eq!(format!("{one:?}"), format!("{other:?}")),
        (Err(one), Err(other)) => {
            assert_eq!(one.reason, other.reason);
            assert_eq!(one.to_string().lines().count(), 1, "{one}");
            let named = known.iter().find(|setting| setting.variable() == other.origin);
            let named = named.unwrap_or_else(|| panic!("{other} does not name a setting"));
            // A setting that is not in the file has its default, and an error about it names the variable.
            let origins = [format!("{FILE}: {}", named.name), named.variable()];
            assert!(origins.contains(&one.origin), "{one} is about {}", named.name);
        }
        (one, other) => panic!("the file makes {one:?} and the environment {other:?}"),
    }
}
