//! The invalidation message: a namespace and keys in it whose copies are void.
//!
//! On the wire it is UTF-8, the parts separated by line feeds, which neither can hold:
//! `namespace\nkey\nkey...`. A person can read it with `SUBSCRIBE sidecache:invalidations`.

use crate::model::{EntryKey, Namespace};

/// A parsed message; keys are parsed as they are walked.
#[derive(Debug)]
pub struct Invalidation<'m> {
    namespace: &'m str,
    keys: &'m str,
}

impl<'m> Invalidation<'m> {
    /// `None` when this is no message of ours.
    pub fn parse(payload: &'m [u8]) -> Option<Self> {
        let (namespace, keys) = std::str::from_utf8(payload).ok()?.split_once('\n')?;
        Namespace::parse(namespace).ok()?;
        Some(Self { namespace, keys })
    }

    /// The keys it names. What is no key cannot have a copy, and is passed over.
    pub fn keys(&self) -> impl Iterator<Item = EntryKey> {
        self.keys.split('\n').filter_map(|key| EntryKey::parse(self.namespace, key).ok())
    }
}
