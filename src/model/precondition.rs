//! The preconditions of a change: `If-Match` and `If-None-Match` (RFC 9110, 13.1.1 and 13.1.2), a lease, and a source
//! version.
//!
//! The ETag of an entry is its version, so a precondition is about versions. An ETag that this service cannot have
//! issued matches no entry.

use std::fmt::Write as _;

use super::entry::Version;
use super::invalid::{Invalid, quoted};
use super::lease::LeaseToken;
use super::source_version::SourceVersion;

const BLANK: [char; 2] = [' ', '\t'];

/// Empty elements of a list are ignored (RFC 9110, 5.6.1).
const EMPTY_ELEMENTS: [char; 3] = [',', ' ', '\t'];

/// The ETags that a header lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtagList {
    /// `*`: any entry that exists.
    Any,
    /// The versions of the listed ETags.
    Listed(Vec<Version>),
}

/// What must be true of the present entry, so that a change happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    /// The entry must exist with one of these ETags.
    pub if_match: Option<EtagList>,
    /// The entry must not exist with one of these ETags.
    pub if_none_match: Option<EtagList>,
    /// This lease on the key must stand. The write ends it.
    pub lease: Option<LeaseToken>,
    /// The present entry, or the tombstone of a deleted one, must not have a larger source version than this. The
    /// change leaves this one.
    pub source_version: Option<SourceVersion>,
}

impl EtagList {
    /// Parses a header's value for `If-Match`, which compares strongly: a weak ETag (`W/"1"`) matches nothing.
    ///
    /// # Errors
    /// [`Invalid::Precondition`]: the text is neither `*` nor a list of ETags.
    pub fn parse_strong(text: &str) -> Result<Self, Invalid> {
        Self::parse(text, false)
    }

    /// Parses a header's value for `If-None-Match`, which compares weakly: `W/"1"` is the same as `"1"`.
    ///
    /// # Errors
    /// [`Invalid::Precondition`]: the text is neither `*` nor a list of ETags.
    pub fn parse_weak(text: &str) -> Result<Self, Invalid> {
        Self::parse(text, true)
    }

    fn parse(text: &str, is_weak: bool) -> Result<Self, Invalid> {
        if text.trim_matches(BLANK) == "*" {
            return Ok(Self::Any);
        }
        let invalid = || {
            Invalid::Precondition(format!("expected `*` or ETags such as \"17\", in quotes, not {}", quoted(text)))
        };
        let (mut versions, mut rest) = (Vec::new(), text.trim_start_matches(EMPTY_ELEMENTS));
        if rest.is_empty() {
            return Err(invalid());
        }
        while !rest.is_empty() {
            let (is_weak_etag, etag) = match rest.strip_prefix("W/") {
                Some(etag) => (true, etag),
                None => (false, rest),
            };
            let (etag, after) = etag.strip_prefix('"').and_then(|etag| etag.split_once('"')).ok_or_else(invalid)?;
            if !etag.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(invalid());
            }
            // The text of a version is unique, so "017" was never issued.
            let version = etag.parse().ok().filter(|version: &u64| version.to_string() == etag);
            versions.extend(version.filter(|_| is_weak || !is_weak_etag).map(Version));
            let after = after.trim_start_matches(BLANK);
            if !after.is_empty() && !after.starts_with(',') {
                return Err(invalid());
            }
            rest = after.trim_start_matches(EMPTY_ELEMENTS);
        }
        Ok(Self::Listed(versions))
    }

    /// Whether the list contains the ETag of this version.
    pub fn holds(&self, present: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(versions) => versions.contains(&present),
        }
    }
}

impl Preconditions {
    /// The preconditions of a change that only names a source version.
    pub fn of_source_version(source_version: SourceVersion) -> Self {
        Self { source_version: Some(source_version), ..Self::default() }
    }

    /// Whether the ETags allow the change, if `present` is the version of the present entry (`None`: there is none).
    pub fn allow(&self, present: Option<Version>) -> bool {
        let is_listed = |list: &EtagList| present.is_some_and(|present| list.holds(present));
        self.if_match.as_ref().is_none_or(is_listed) && !self.if_none_match.as_ref().is_some_and(is_listed)
    }

    /// The form in which scripts take preconditions: `m` for `If-Match` and `n` for `If-None-Match`, each followed by
    /// `*` or by versions with commas between them; `l` for a lease, followed by its token; and `s` for a source
    /// version; with spaces between them. For example `m17,18` or `n* s3`.
    pub fn to_script(&self) -> String {
        let mut text = String::new();
        for (kind, list) in [('m', &self.if_match), ('n', &self.if_none_match)] {
            let Some(list) = list else { continue };
            if !text.is_empty() {
                text.push(' ');
            }
            text.push(kind);
            match list {
                EtagList::Any => text.push('*'),
                EtagList::Listed(versions) => {
                    for (i, Version(version)) in versions.iter().enumerate() {
                        let comma = if i > 0 { "," } else { "" };
                        write!(text, "{comma}{version}").expect("a String takes everything");
                    }
                }
            }
        }
        if let Some(lease) = &self.lease {
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}l{}", lease.as_str()).expect("a String takes everything");
        }
        if let Some(version) = self.source_version {
            let space = if text.is_empty() { "" } else { " " };
            write!(text, "{space}s{}", version.number()).expect("a String takes everything");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(versions: &[u64]) -> EtagList {
        EtagList::Listed(versions.iter().copied().map(Version).collect())
    }

    #[test]
    fn a_list_of_etags_is_parsed() {
        for (text, strong, weak) in [
            ("\"17\"", listed(&[17]), listed(&[17])),
            (" \"17\" ,\"18\",  W/\"19\"", listed(&[17, 18]), listed(&[17, 18, 19])),
            ("*", EtagList::Any, EtagList::Any),
            ("\"other\", \"\", \"017\", \"a,b\", \"18446744073709551616\"", listed(&[]), listed(&[])),
            (", \"17\",, \"18\" ,", listed(&[17, 18]), listed(&[17, 18])),
        ] {
            assert_eq!(EtagList::parse_strong(text), Ok(strong), "{text}");
            assert_eq!(EtagList::parse_weak(text), Ok(weak), "{text}");
        }
    }

    #[test]
    fn a_list_without_quotes_is_refused() {
        for text in ["", " ,", "\"a b\"", "\"\u{e9}\"", "17", "\"17", "\"17\" \"18\"", "W/17", "*, \"17\"", "'17'"] {
            assert!(matches!(EtagList::parse_strong(text), Err(Invalid::Precondition(_))), "{text}");
        }
    }

    #[test]
    fn preconditions_are_about_the_present_version() {
        let (none, seven) = (None, Some(Version(7)));
        let only = |if_match, if_none_match| Preconditions { if_match, if_none_match, ..Preconditions::default() };
        for (preconditions, script, without_entry, with_seven) in [
            (only(None, None), "", true, true),
            (only(Some(EtagList::Any), None), "m*", false, true),
            (only(Some(listed(&[6, 7])), None), "m6,7", false, true),
            (only(Some(listed(&[77])), None), "m77", false, false),
            (only(Some(listed(&[])), None), "m", false, false),
            (only(None, Some(EtagList::Any)), "n*", true, false),
            (only(None, Some(listed(&[6]))), "n6", true, true),
            (only(None, Some(listed(&[7]))), "n7", true, false),
            (only(Some(EtagList::Any), Some(listed(&[7]))), "m* n7", false, false),
        ] {
            assert_eq!(preconditions.to_script(), script);
            assert_eq!(preconditions.allow(none), without_entry, "{script}");
            assert_eq!(preconditions.allow(seven), with_seven, "{script}");
        }
    }

    #[test]
    fn a_script_gets_all_preconditions_in_one_text() {
        let source_version = SourceVersion::parse("9007199254740993").ok();
        let lease = Some(LeaseToken::from_bits(0x2a));
        let all = Preconditions { if_match: Some(listed(&[6])), if_none_match: None, lease, source_version };
        assert_eq!(all.to_script(), "m6 l0000000000000000000000000000002a s9007199254740993");
        let alone = source_version.map(Preconditions::of_source_version);
        assert_eq!(alone.map(|alone| alone.to_script()).as_deref(), Some("s9007199254740993"));
    }
}
