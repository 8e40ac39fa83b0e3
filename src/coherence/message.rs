//! The invalidation message: a namespace and the keys whose copies are void.
//!
//! On the wire it is UTF-8 text, separated by line feeds, which neither a namespace nor a key can contain:
//! `namespace\nkey\nkey...`. `SUBSCRIBE sidecache:invalidations` shows the messages in readable form.

use crate::model::{EntryKey, Namespace};

/// A parsed message. The keys are parsed during iteration.
#[derive(Debug)]
pub struct Invalidation<'m> {
    namespace: &'m str,
    keys: &'m str,
}

impl<'m> Invalidation<'m> {
    /// `None` if the payload is not such a message.
    pub fn parse(payload: &'m [u8]) -> Option<Self> {
        let (namespace, keys) = std::str::from_utf8(payload).ok()?.split_once('\n')?;
        Namespace::parse(namespace).ok()?;
        Some(Self { namespace, keys })
    }

    /// The keys in the message. Invalid keys are skipped, as they cannot have a copy.
    pub fn keys(&self) -> impl Iterator<Item = EntryKey> {
        self.keys.split('\n').filter_map(|key| EntryKey::parse(self.namespace, key).ok())
    }
}
