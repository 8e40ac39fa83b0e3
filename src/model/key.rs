//! Keys: the key that a client gives, and the same key combined with its namespace and hash.

use std::fmt;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

use hashbrown::Equivalent;

use super::hash::{hash, map_hash};
use super::invalid::Invalid;
use super::key_bytes::{MAX_KEY_BYTES, check_key, push_key};
use super::namespace::Namespace;

/// A key as the client gave it: 1 to 512 bytes of UTF-8 without control characters. One that begins with `%:` stands
/// for other bytes, see [`key_bytes`](super::key_bytes).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// The longest key, in bytes.
    pub const MAX_LEN: usize = MAX_KEY_BYTES;

    /// # Errors
    /// [`Invalid::Key`] if the key is empty, too long or contains a control character.
    pub fn parse(text: impl Into<String> + AsRef<str>) -> Result<Self, Invalid> {
        check_key(text.as_ref())?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The address of one entry: namespace and key in one string, hashed once for all maps.
///
/// The text is `namespace:key`. This is unambiguous because a namespace contains no `:`. The names of entries in a
/// shard are this text after a prefix. Maps in memory use [`Address::map_hash`], which no client can predict; the
/// ring uses [`Address::ring_hash`], which is computed on demand.
#[derive(Clone, Copy)]
pub struct Address<T> {
    text: T,
    /// Length of the namespace at the start of `text`, in bytes; at most [`Namespace::MAX_LEN`].
    namespace_len: u8,
    map_hash: u64,
}

/// An address of its own; cheap to clone.
pub type EntryKey = Address<Arc<str>>;

/// An address as borrowed text: enough to look an entry up, created without an allocation.
pub type KeyRef<'k> = Address<&'k str>;

impl<T: Deref<Target = str>> Address<T> {
    /// `namespace:key`.
    pub fn text(&self) -> &str {
        &self.text
    }

    pub fn namespace(&self) -> &str {
        &self.text[..usize::from(self.namespace_len)]
    }

    pub fn key(&self) -> &str {
        &self.text[usize::from(self.namespace_len) + 1..]
    }

    /// The hash that the ring uses, the same in every process. Do not use it for a map.
    pub fn ring_hash(&self) -> u64 {
        hash(self.text.as_bytes())
    }

    /// The hash for maps; it differs between processes.
    pub fn map_hash(&self) -> u64 {
        self.map_hash
    }

    /// A borrowed view of this address.
    pub fn borrowed(&self) -> KeyRef<'_> {
        Address { text: &self.text, namespace_len: self.namespace_len, map_hash: self.map_hash }
    }

    /// An owned copy of this address.
    pub fn to_key(&self) -> EntryKey {
        Address { text: (*self.text).into(), namespace_len: self.namespace_len, map_hash: self.map_hash }
    }
}

impl EntryKey {
    /// # Errors
    /// [`Invalid::Namespace`] or [`Invalid::Key`], whichever is wrong first.
    pub fn parse(namespace: &str, key: &str) -> Result<Self, Invalid> {
        let mut text = String::with_capacity(namespace.len() + 1 + key.len());
        KeyRef::parse(namespace, key, &mut text).map(|key| key.to_key())
    }

    pub fn new(namespace: &Namespace, key: &Key) -> Self {
        let (namespace, key) = (namespace.as_str(), key.as_str());
        let mut text = String::with_capacity(namespace.len() + 1 + key.len());
        KeyRef::assemble(namespace, key, &mut text).to_key()
    }
}

impl<'k> KeyRef<'k> {
    /// Overwrites `buffer` with the text and borrows it from there.
    ///
    /// # Errors
    /// [`Invalid::Namespace`] or [`Invalid::Key`], whichever is wrong first.
    pub fn parse(namespace: &str, key: &str, buffer: &'k mut String) -> Result<Self, Invalid> {
        Namespace::check(namespace)?;
        check_key(key)?;
        Ok(Self::assemble(namespace, key, buffer))
    }

    /// The key of these bytes. Overwrites `buffer` with the text and borrows it from there.
    ///
    /// # Errors
    /// [`Invalid::Key`] if the key is too long.
    pub fn of_bytes(namespace: &Namespace, key: &[u8], buffer: &'k mut String) -> Result<Self, Invalid> {
        Self::begin(namespace.as_str(), buffer);
        push_key(key, buffer)?;
        Ok(Self::end(namespace.as_str(), buffer))
    }

    fn assemble(namespace: &str, key: &str, buffer: &'k mut String) -> Self {
        Self::begin(namespace, buffer);
        buffer.push_str(key);
        Self::end(namespace, buffer)
    }

    fn begin(namespace: &str, buffer: &mut String) {
        buffer.clear();
        buffer.push_str(namespace);
        buffer.push(':');
    }

    fn end(namespace: &str, buffer: &'k str) -> Self {
        let namespace_len = u8::try_from(namespace.len()).expect("a namespace has at most 100 bytes");
        Self { text: buffer, namespace_len, map_hash: map_hash(buffer.as_bytes()) }
    }

    /// The key with this [`Address::text`].
    pub(crate) fn of_text(text: &'k str) -> Self {
        let namespace_len = text.bytes().position(|byte| byte == b':').and_then(|len| len.try_into().ok());
        Self {
            text,
            namespace_len: namespace_len.expect("the text of a key has a colon"),
            map_hash: map_hash(text.as_bytes()),
        }
    }
}

impl<T: Deref<Target = str>> fmt::Debug for Address<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Address").field(&self.text()).finish()
    }
}

impl<T: Deref<Target = str>> PartialEq for Address<T> {
    fn eq(&self, other: &Self) -> bool {
        self.map_hash == other.map_hash && *self.text == *other.text
    }
}

impl<T: Deref<Target = str>> Eq for Address<T> {}

impl<T> Hash for Address<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.map_hash);
    }
}

/// Allows lookups in maps with [`EntryKey`] keys.
impl Equivalent<EntryKey> for KeyRef<'_> {
    fn equivalent(&self, key: &EntryKey) -> bool {
        *self == key.borrowed()
    }
}

/// For maps with [`EntryKey`] keys: uses the hash that the key already has.
pub type EntryKeyHasher = BuildHasherDefault<PrecomputedHash>;

/// Returns the key's own hash unchanged.
#[derive(Default)]
pub struct PrecomputedHash(u64);

impl Hasher for PrecomputedHash {
    fn write(&mut self, bytes: &[u8]) {
        // `EntryKey` only calls `write_u64`; other types still get a sound hash.
        self.0 = map_hash(bytes) ^ self.0.rotate_left(1);
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_key_gives_back_its_parts() {
        let key = EntryKey::parse("users", "a:b/c d").unwrap();
        assert_eq!((key.namespace(), key.key(), key.text()), ("users", "a:b/c d", "users:a:b/c d"));
    }

    #[test]
    fn a_borrowed_key_is_the_same_key() {
        let (key, mut buffer) = (EntryKey::parse("users", "a:b").unwrap(), "left over".to_owned());
        let parsed = KeyRef::parse("users", "a:b", &mut buffer).unwrap();
        for borrowed in [parsed, key.borrowed(), KeyRef::of_text("users:a:b")] {
            assert_eq!((borrowed.namespace(), borrowed.key()), ("users", "a:b"));
            assert_eq!((borrowed.ring_hash(), borrowed.map_hash()), (key.ring_hash(), key.map_hash()));
            assert_eq!(borrowed.to_key(), key);
        }
        let users = Namespace::parse("users").unwrap();
        assert_eq!(KeyRef::of_bytes(&users, b"a:b", &mut buffer).unwrap().to_key(), key);
        assert_eq!(KeyRef::of_bytes(&users, b"\0", &mut buffer).unwrap().text(), "users:%:%00");
        assert!(matches!(KeyRef::parse("a:b", "c", &mut buffer), Err(Invalid::Namespace(_))));
        assert!(matches!(KeyRef::parse("a", "b\n", &mut buffer), Err(Invalid::Key(_))));
    }

    #[test]
    fn keys_are_bounded_in_bytes_and_free_of_control_characters() {
        assert!(Key::parse("k".repeat(512)).is_ok());
        assert!(Key::parse("😀".repeat(128)).is_ok());
        for bad in [String::new(), "k".repeat(513), "a\nb".into(), "\u{7f}".into(), "\u{85}".into()] {
            assert!(matches!(Key::parse(bad.clone()), Err(Invalid::Key(_))), "{bad:?}");
        }
    }
}
