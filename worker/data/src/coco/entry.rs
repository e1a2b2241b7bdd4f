//! The entries of an annotation file's lists: which keys count, and what to say of a wrong one.

use super::problem::Collector;
use super::scalar::Scalar;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use std::fmt;

/// `images[]`: an id and a file name.
#[derive(Debug)]
pub(super) struct RawImage {
    pub(super) id: u64,
    pub(super) file_name: String,
}

/// `annotations[]`: which picture shows which category.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawAnnotation {
    pub(super) id: u64,
    pub(super) image_id: u64,
    pub(super) category_id: u64,
}

/// `categories[]`.
#[derive(Debug)]
pub(super) struct RawCategory {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) supercategory: Option<String>,
}

/// An entry of any of the three lists: the keys that we need of it. Of a key given twice the last counts, as in Python.
#[derive(Default)]
pub(super) struct Entry {
    id: Option<Scalar>,
    file_name: Option<Scalar>,
    image_id: Option<Scalar>,
    category_id: Option<Scalar>,
    name: Option<Scalar>,
    supercategory: Option<Scalar>,
}

#[derive(Clone, Copy)]
enum EntryKey {
    Id,
    FileName,
    ImageId,
    CategoryId,
    Name,
    Supercategory,
    Other,
}

impl<'de> Deserialize<'de> for EntryKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(Name(|name| match name {
            "id" => Self::Id,
            "file_name" => Self::FileName,
            "image_id" => Self::ImageId,
            "category_id" => Self::CategoryId,
            "name" => Self::Name,
            "supercategory" => Self::Supercategory,
            _ => Self::Other,
        }))
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = Entry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entry, A::Error> {
        let mut entry = Entry::default();
        while let Some(key) = map.next_key()? {
            let field = match key {
                EntryKey::Id => &mut entry.id,
                EntryKey::FileName => &mut entry.file_name,
                EntryKey::ImageId => &mut entry.image_id,
                EntryKey::CategoryId => &mut entry.category_id,
                EntryKey::Name => &mut entry.name,
                EntryKey::Supercategory => &mut entry.supercategory,
                EntryKey::Other => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            *field = Some(map.next_value()?);
        }
        Ok(entry)
    }
}

impl Entry {
    pub(super) fn image(self, index: usize, problems: &mut Collector) -> Option<RawImage> {
        let at = Place {
            list: "images",
            index,
            id: self.id.clone(),
        };
        let id = at.whole("id", self.id, problems);
        let file_name = at.text("file_name", self.file_name, problems);
        Some(RawImage {
            id: id?,
            file_name: file_name?,
        })
    }

    pub(super) fn annotation(
        self,
        index: usize,
        problems: &mut Collector,
    ) -> Option<RawAnnotation> {
        // The common case first: this runs a million times.
        if let (
            Some(Scalar::Whole(id)),
            Some(Scalar::Whole(image_id)),
            Some(Scalar::Whole(category_id)),
        ) = (&self.id, &self.image_id, &self.category_id)
        {
            return Some(RawAnnotation {
                id: *id,
                image_id: *image_id,
                category_id: *category_id,
            });
        }
        let at = Place {
            list: "annotations",
            index,
            id: self.id.clone(),
        };
        at.whole("id", self.id, problems);
        at.whole("image_id", self.image_id, problems);
        at.whole("category_id", self.category_id, problems);
        None
    }

    pub(super) fn category(self, index: usize, problems: &mut Collector) -> Option<RawCategory> {
        let at = Place {
            list: "categories",
            index,
            id: self.id.clone(),
        };
        let id = at.whole("id", self.id, problems);
        let name = at.text("name", self.name, problems);
        let supercategory = match self.supercategory {
            Some(Scalar::Text(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Some(RawCategory {
            id: id?,
            name: name?,
            supercategory,
        })
    }
}

/// Where an entry stands, for its problems.
struct Place {
    list: &'static str,
    index: usize,
    id: Option<Scalar>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.list, self.index)?;
        self.id
            .as_ref()
            .map_or(Ok(()), |id| write!(f, " (id {id})"))
    }
}

impl Place {
    fn whole(&self, key: &str, value: Option<Scalar>, problems: &mut Collector) -> Option<u64> {
        match value {
            Some(Scalar::Whole(number)) => return Some(number),
            Some(other) => problems
                .add(|| format!("{self}: {key} is {other}; a whole number from 0 is needed")),
            None => problems.add(|| format!("{self} has no {key}; a whole number is needed")),
        }
        None
    }

    fn text(&self, key: &str, value: Option<Scalar>, problems: &mut Collector) -> Option<String> {
        match value {
            Some(Scalar::Text(text)) if !text.is_empty() && !text.contains('\0') => {
                return Some(text);
            }
            Some(other) => problems
                .add(|| format!("{self}: {key} is {other}; a text that is not empty is needed")),
            None if key == "file_name" => {
                problems.add(|| format!("{self} has no file_name; pictures are read from files, never fetched from a URL"));
            }
            None => problems.add(|| format!("{self} has no {key}; a text is needed")),
        }
        None
    }
}

/// Visits an object's key.
pub(super) struct Name<T>(pub(super) fn(&str) -> T);

impl<T> Visitor<'_> for Name<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<T, E> {
        Ok((self.0)(name))
    }
}
