//! The invalidation message: which payloads are valid, and which keys they contain. A key that is missed would cause
//! a stale answer.

use sidecache::coherence::Invalidation;
use sidecache::model::{EntryKey, Key, Namespace};

pub fn check(data: &[u8]) {
    let expected = str::from_utf8(data).ok().and_then(|text| {
        let (head, keys) = text.split_once('\n')?;
        let (seq, rest) = head.split_once(' ')?;
        let (_, namespace) = rest.split_once(' ')?;
        seq.parse::<u64>().ok()?;
        let keys: Vec<&str> = keys.split('\n').filter(|key| Key::parse(*key).is_ok()).collect();
        Namespace::parse(namespace).is_ok().then_some((namespace, keys))
    });
    let Some(message) = Invalidation::parse(data) else {
        assert!(expected.is_none(), "{data:?} is a valid message");
        return;
    };
    let (namespace, keys) = expected.unwrap_or_else(|| panic!("{data:?} is not a valid message"));
    let found: Vec<_> = message.keys().collect();
    assert!(found.iter().all(|key| key.namespace() == namespace), "{found:?}");
    assert_eq!(found.iter().map(EntryKey::key).collect::<Vec<_>>(), keys);

    // A message in the published form, with only these keys, must contain all of them again.
    let printed = format!("{} set {namespace}\n{}", message.seq, keys.join("\n"));
    let message = Invalidation::parse(printed.as_bytes()).expect("a namespace and keys are a message");
    assert!(message.keys().eq(found), "{printed:?}");
}
