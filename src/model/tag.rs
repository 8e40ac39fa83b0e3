//! Tags: names under which entries can be flushed together.

use super::invalid::{Invalid, check};

/// A tag: 1 to 128 bytes of UTF-8 without control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(String);

impl Tag {
    /// The longest tag, in bytes.
    pub const MAX_LEN: usize = 128;

    /// # Errors
    /// [`Invalid::Tag`] if it is empty, too long or contains a control character.
    pub fn parse(text: impl Into<String> + AsRef<str>) -> Result<Self, Invalid> {
        check("tag", text.as_ref(), Self::MAX_LEN).map_err(Invalid::Tag)?;
        Ok(Self(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tags of one entry: distinct, at most [`Tags::MAX`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tags(Box<[Tag]>);

impl Tags {
    /// The maximum number of tags of an entry. A write updates one set for each tag.
    pub const MAX: usize = 32;

    /// # Errors
    /// [`Invalid::Tag`] if a tag is invalid or there are too many.
    pub fn parse(texts: Vec<String>) -> Result<Self, Invalid> {
        if texts.len() > Self::MAX {
            return Err(Self::too_many());
        }
        Ok(Self::of(texts.into_iter().map(Tag::parse).collect::<Result<_, _>>()?))
    }

    /// Removes duplicates from `tags`.
    ///
    /// # Panics
    /// There are more than [`Tags::MAX`].
    pub fn of(mut tags: Vec<Tag>) -> Self {
        assert!(tags.len() <= Self::MAX, "{} tags", tags.len());
        tags.sort_unstable();
        tags.dedup();
        Self(tags.into())
    }

    /// The error for too many tags, duplicates included.
    pub fn too_many() -> Invalid {
        Invalid::Tag(format!("an entry can have at most {} tags", Self::MAX))
    }

    pub fn contains(&self, tag: &Tag) -> bool {
        self.0.binary_search(tag).is_ok()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Tag> {
        self.0.iter()
    }

    /// The stored form: the tags separated by line feeds, which tags cannot contain.
    pub fn joined(&self) -> String {
        let texts: Vec<&str> = self.0.iter().map(Tag::as_str).collect();
        texts.join("\n")
    }

    /// The length of [`Tags::joined`] in bytes.
    pub fn joined_len(&self) -> usize {
        self.iter().map(|tag| tag.as_str().len()).sum::<usize>() + self.len().saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_kept_once() {
        let tags = Tags::parse(vec!["b".into(), "a".into(), "b".into()]).unwrap();
        assert_eq!(tags.joined(), "a\nb");
        for tags in [tags, Tags::default(), Tags::parse(vec!["one".into()]).unwrap()] {
            assert_eq!(tags.joined_len(), tags.joined().len());
        }
    }

    #[test]
    fn bad_tags_and_too_many_are_refused() {
        assert!(Tags::parse(vec![String::new()]).is_err());
        assert!(Tags::parse(vec!["a\nb".into()]).is_err());
        assert!(Tags::parse(vec!["t".repeat(129)]).is_err());
        assert!(Tags::parse((0..33).map(|i| i.to_string()).collect()).is_err());
    }
}
