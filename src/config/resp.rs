//! The listener for Redis clients: the settings `resp_listen` and `resp_databases`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::settings::{Error, Settings};
use crate::model::Namespace;

/// The numbers that clients can select are less than this.
pub const MAX_DATABASES: u32 = 65_536;

/// The listener for Redis clients.
#[derive(Clone, Debug)]
pub struct RespConfig {
    /// `None`: there is no listener.
    pub listen: Option<SocketAddr>,
    /// Whether nobody set the address. Then it may be taken by another program.
    pub is_default: bool,
    pub databases: Databases,
}

/// The namespace behind each number that a Redis client can select.
#[derive(Clone, Debug)]
pub struct Databases(BTreeMap<u32, Namespace>);

impl RespConfig {
    /// # Errors
    /// The address or a database is invalid.
    pub fn parse(settings: &Settings) -> Result<Self, Error> {
        Ok(Self {
            listen: settings.optional("resp_listen", "<address>:<port>", |text| text.parse().ok())?,
            is_default: settings.is_default("resp_listen"),
            databases: Databases::parse(settings)?,
        })
    }
}

impl Databases {
    fn parse(settings: &Settings) -> Result<Self, Error> {
        const NAME: &str = "resp_databases";
        let mut databases = BTreeMap::new();
        for pair in settings.text(NAME).split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let expected = || settings.error(NAME, format!("expected <number>=<namespace>, not {pair:?}"));
            let (number, namespace) = pair.split_once('=').ok_or_else(expected)?;
            let number: u32 =
                number.trim().parse().ok().filter(|number| *number < MAX_DATABASES).ok_or_else(expected)?;
            let namespace = Namespace::parse(namespace.trim()).map_err(|error| settings.error(NAME, error))?;
            if databases.insert(number, namespace).is_some() {
                return Err(settings.error(NAME, format!("the number {number} has two namespaces")));
            }
        }
        Ok(Self(databases))
    }

    /// The namespace of a number. A number that is not in the setting has one, too: `default` for 0, else `db1` and so
    /// on. `None` if the number is too large.
    pub fn namespace(&self, number: u32) -> Option<Namespace> {
        if number >= MAX_DATABASES {
            return None;
        }
        let unnamed = || if number == 0 { "default".to_owned() } else { format!("db{number}") };
        let of_unnamed = || Namespace::parse(&unnamed()).expect("it has letters and digits");
        Some(self.0.get(&number).cloned().unwrap_or_else(of_unnamed))
    }

    /// The numbers in the setting, and 0.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let first = (!self.0.contains_key(&0)).then_some(0);
        first.into_iter().chain(self.0.keys().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(listen: &str, databases: &str) -> Result<RespConfig, Error> {
        let settings = [("SIDECACHE_RESP_LISTEN", listen), ("SIDECACHE_RESP_DATABASES", databases)];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        RespConfig::parse(&Settings::gather(None, settings, []).unwrap())
    }

    #[test]
    fn the_default_is_beside_the_port_of_redis() {
        let config = RespConfig::parse(&Settings::gather(None, [], []).unwrap()).unwrap();
        assert_eq!(config.listen, Some("127.0.0.1:6378".parse().unwrap()));
        assert!(config.is_default);
        let given = parse("127.0.0.1:6378", "").unwrap();
        assert!(!given.is_default, "somebody set it, if only to the default");
        assert_eq!(parse("", "").unwrap().listen, None);
    }

    #[test]
    fn numbers_have_namespaces() {
        let databases = parse("", "0=users, 7=sessions,").unwrap().databases;
        let name = |number| databases.namespace(number).map(|namespace| namespace.to_string());
        assert_eq!((name(0).as_deref(), name(7).as_deref()), (Some("users"), Some("sessions")));
        assert_eq!((name(1).as_deref(), name(MAX_DATABASES)), (Some("db1"), None));
        assert_eq!(databases.numbers().collect::<Vec<_>>(), [0, 7]);
        let none = parse("", "").unwrap().databases;
        assert_eq!(none.namespace(0).unwrap().as_str(), "default");
        assert_eq!(none.numbers().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn wrong_settings_are_named() {
        for (listen, databases) in
            [("6378", ""), ("", "users"), ("", "a=users"), ("", "65536=users"), ("", "0=a b"), ("", "0=a,0=b")]
        {
            let error = parse(listen, databases).unwrap_err().to_string();
            assert!(error.starts_with("SIDECACHE_RESP_"), "{error}");
        }
    }
}
