//! One pass over an annotation file: keeps ids, names and category ids, and skips everything else unread.
//!
//! The file is read into memory, not mapped: a mapped file that someone cuts while it is read kills the process with
//! SIGBUS, and the read costs a tenth of the parse. It is freed before the index is built.

use super::entry::{Entry, Name, RawAnnotation, RawCategory, RawImage};
use super::problem::Collector;
use crate::content::sniff;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use std::fmt;
use std::path::Path;

/// What one file lists. Entries with a mistake of their own are left out and reported.
#[derive(Debug, Default)]
pub(super) struct RawFile {
    pub(super) images: Vec<RawImage>,
    pub(super) annotations: Vec<RawAnnotation>,
    pub(super) categories: Vec<RawCategory>,
}

/// Reads a file; `None` when it is not JSON of the right shape, which is then the problem reported.
pub(super) fn read(path: &Path, problems: &mut Collector) -> Option<RawFile> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            problems.add(|| format!("cannot be read: {error}"));
            return None;
        }
    };
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut file = RawFile::default();
    let mut seen = Seen::default();
    let mut json = serde_json::Deserializer::from_slice(text);
    let parsed = TopLevel {
        file: &mut file,
        seen: &mut seen,
        problems,
    }
    .deserialize(&mut json)
    .and_then(|()| json.end());
    if let Err(error) = parsed {
        problems.add(|| describe(text, bytes.len(), &error));
        return None;
    }
    for (key, seen) in [
        ("images", seen.images),
        ("annotations", seen.annotations),
        ("categories", seen.categories),
    ] {
        if !seen {
            problems.add(|| format!("has no key {key}: is this an instances_*.json file?"));
        }
    }
    Some(file)
}

/// A parse error with its place and its likely cause.
fn describe(text: &[u8], size: usize, error: &serde_json::Error) -> String {
    if let Some(content) = sniff(text) {
        return format!("holds {content}, not JSON");
    }
    let place = format!("line {} column {}", error.line(), error.column());
    if error.is_eof() {
        return format!(
            "ends in the middle at {place} after {size} bytes: the download was cut, fetch it again"
        );
    }
    if let Some(literal) = literal_at(text, error.line(), error.column()) {
        return format!(
            "{literal} at {place} is not JSON (Python's json.dump writes it): replace it by null, or write with allow_nan=False"
        );
    }
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or(&message);
    format!("{message} at {place}")
}

/// Python's non-numbers, if one stands where the parser stopped.
fn literal_at(text: &[u8], line: usize, column: usize) -> Option<&'static str> {
    let start = match line {
        0 | 1 => 0,
        _ => memchr::memchr_iter(b'\n', text).nth(line - 2)? + 1,
    };
    let at = start + column;
    // The parser stops at the first or second letter, or at the I after a minus sign.
    let near = text.get(at.saturating_sub(3)..)?;
    ["NaN", "-Infinity", "Infinity"]
        .into_iter()
        .find(|literal| {
            (0..4).any(|skip| {
                near.get(skip..)
                    .is_some_and(|n| n.starts_with(literal.as_bytes()))
            })
        })
}

#[derive(Default)]
struct Seen {
    images: bool,
    annotations: bool,
    categories: bool,
}

struct TopLevel<'a> {
    file: &'a mut RawFile,
    seen: &'a mut Seen,
    problems: &'a mut Collector,
}

impl<'de> DeserializeSeed<'de> for TopLevel<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for TopLevel<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with the keys images, annotations and categories")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<TopKey>()? {
            let seen = match key {
                TopKey::Images => &mut self.seen.images,
                TopKey::Annotations => &mut self.seen.annotations,
                TopKey::Categories => &mut self.seen.categories,
                TopKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if std::mem::replace(seen, true) {
                return Err(de::Error::custom(format_args!(
                    "the key {key:?} is there twice"
                )));
            }
            let problems = &mut *self.problems;
            match key {
                TopKey::Images => map.next_value_seed(List {
                    key: "images",
                    take: |index, entry: Entry| {
                        self.file.images.extend(entry.image(index, problems))
                    },
                })?,
                TopKey::Annotations => map.next_value_seed(List {
                    key: "annotations",
                    take: |index, entry: Entry| {
                        self.file
                            .annotations
                            .extend(entry.annotation(index, problems))
                    },
                })?,
                TopKey::Categories | TopKey::Other => map.next_value_seed(List {
                    key: "categories",
                    take: |index, entry: Entry| {
                        self.file.categories.extend(entry.category(index, problems))
                    },
                })?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum TopKey {
    Images,
    Annotations,
    Categories,
    Other,
}

impl fmt::Debug for TopKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Images => "images",
            Self::Annotations => "annotations",
            Self::Categories => "categories",
            Self::Other => "other",
        })
    }
}

impl<'de> Deserialize<'de> for TopKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(Name(|name| match name {
            "images" => Self::Images,
            "annotations" => Self::Annotations,
            "categories" => Self::Categories,
            _ => Self::Other,
        }))
    }
}

/// Hands each entry of a list to `take` as it comes, so that no list of entries is ever held.
struct List<F> {
    key: &'static str,
    take: F,
}

impl<'de, F: FnMut(usize, Entry)> DeserializeSeed<'de> for List<F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, F: FnMut(usize, Entry)> Visitor<'de> for List<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} to be a list of objects", self.key)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(entry) = items.next_element()? {
            (self.take)(index, entry);
            index += 1;
        }
        Ok(())
    }
}
