//! From what a file lists to the index: joins annotations to pictures and categories, and finds what contradicts.

use super::entry::{RawAnnotation, RawCategory, RawImage};
use super::parse::RawFile;
use super::problem::Collector;
use super::{Class, Group, OpenError, Options, Sample, Split, Warning};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Most classes: a label is stored in 16 bits.
pub(super) const MAX_CLASSES: usize = 1 << 16;

/// Classes in file order, their groups unset.
pub(super) fn classes(categories: &[RawCategory], problems: &mut Collector) -> Vec<Class> {
    if categories.is_empty() && problems.is_empty() {
        problems.add(|| "categories is empty: there is no class to learn".to_owned());
    }
    if categories.len() > MAX_CLASSES {
        problems.add(|| {
            format!(
                "categories has {} entries; at most {MAX_CLASSES} are supported",
                categories.len()
            )
        });
    }
    let mut by_id: HashMap<u64, &str> = HashMap::new();
    let mut by_name: HashMap<&str, u64> = HashMap::new();
    for RawCategory { id, name, .. } in categories {
        if let Some(first) = by_id.insert(*id, name) {
            problems.add(|| {
                format!("categories[].id {id} is carried by {first:?} and by {name:?}: give each category its own id")
            });
        }
        if let Some(first) = by_name.insert(name, *id) {
            problems.add(|| {
                format!("categories[].name {name:?} is carried by id {first} and by id {id}: give each category its own name")
            });
        }
    }
    categories
        .iter()
        .map(|c| Class {
            name: c.name.clone(),
            coco_id: c.id,
            group: 0,
        })
        .collect()
}

/// Groups by supercategory in order of first appearance; sets each class's group.
pub(crate) fn by_supercategory<'a>(
    classes: &mut [Class],
    supercategories: impl Iterator<Item = &'a str>,
) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut index_of: HashMap<&str, usize> = HashMap::new();
    for (index, (class, name)) in classes.iter_mut().zip(supercategories).enumerate() {
        class.group = *index_of.entry(name).or_insert_with(|| {
            groups.push(Group {
                name: name.to_owned(),
                classes: Vec::new(),
            });
            groups.len() - 1
        });
        groups[class.group].classes.push(index);
    }
    groups
}

/// Groups by supercategory, or as `data.groups` says; sets each class's group.
pub(super) fn groups(
    classes: &mut [Class],
    categories: &[RawCategory],
    options: &Options,
) -> Result<Vec<Group>, OpenError> {
    let Some(wanted) = &options.groups else {
        let names = categories.iter().map(|c| c.supercategory.as_deref());
        return Ok(by_supercategory(
            classes,
            names.map(|name| name.unwrap_or("default")),
        ));
    };
    let mut groups: Vec<Group> = Vec::new();
    let index_of: HashMap<&str, usize> = classes
        .iter()
        .enumerate()
        .map(|(i, c)| (c.name.as_str(), i))
        .collect();
    let mut owner: Vec<Option<usize>> = vec![None; classes.len()];
    let mut mistakes = Vec::new();
    for (group, (name, members)) in wanted.iter().enumerate() {
        if members.is_empty() {
            mistakes.push(format!("group {name:?} has no class"));
        }
        for member in members {
            let Some(&class) = index_of.get(member.as_str()) else {
                mistakes.push(format!(
                    "group {name:?} names {member:?}, which is no class of the training annotations"
                ));
                continue;
            };
            if let Some(first) = owner[class].replace(group) {
                mistakes.push(format!(
                    "class {member:?} is in group {:?} and in group {name:?}",
                    wanted[first].0
                ));
            }
        }
        groups.push(Group {
            name: name.clone(),
            classes: Vec::new(),
        });
    }
    let homeless: Vec<usize> = (0..classes.len())
        .filter(|&class| owner[class].is_none())
        .collect();
    if let Some(&first) = homeless.first() {
        mistakes.push(format!(
            "{} classes are in no group, {:?} the first",
            homeless.len(),
            classes[first].name
        ));
    }
    if !mistakes.is_empty() {
        return Err(OpenError::Groups(mistakes));
    }
    for (index, class) in classes.iter().enumerate() {
        if let Some(group) = owner[index] {
            groups[group].classes.push(index);
        }
        debug_assert_eq!(class.group, 0);
    }
    for (class, group) in classes.iter_mut().zip(owner) {
        class.group = group.unwrap_or_default();
    }
    Ok(groups)
}

/// The pictures with their labels. `split` comes with its names and paths and leaves with everything.
pub(super) fn samples(
    mut split: Split,
    raw: RawFile,
    classes: &[Class],
    options: &Options,
    problems: &mut Collector,
) -> Split {
    let RawFile {
        images,
        annotations,
        ..
    } = raw;
    if images.is_empty() && problems.is_empty() {
        problems.add(|| "images is empty: the split has no picture".to_owned());
    }
    let sample_of = image_ids(&images, problems);
    duplicate_annotation_ids(&annotations, problems);
    let mut pairs = labels(&annotations, &sample_of, classes, problems);
    drop(annotations);
    pairs.sort_unstable();
    pairs.dedup();

    if let Some(warning) = shared_files(&images) {
        split.warnings.push(warning);
    }
    let mut pairs = pairs.as_slice();
    split.samples.reserve(images.len());
    for (index, image) in images.into_iter().enumerate() {
        let own = pairs.partition_point(|&(sample, _)| sample as usize <= index);
        let labels: Box<[u16]> = pairs[..own].iter().map(|&(_, class)| class).collect();
        pairs = &pairs[own..];
        if labels.is_empty() {
            split.unlabelled += 1;
            if options.drop_unlabelled {
                split.dropped += 1;
                continue;
            }
        }
        split.samples.push(Sample {
            image_id: image.id,
            file_name: image.file_name,
            labels,
        });
    }
    split.num_classes = classes.len();
    if split.samples.is_empty() && split.dropped > 0 {
        problems.add(|| {
            format!(
                "images has {} entries and none has a label, so data.drop_unlabelled leaves nothing: set it to false",
                split.dropped
            )
        });
    }
    split
}

fn image_ids(images: &[RawImage], problems: &mut Collector) -> HashMap<u64, u32> {
    if u32::try_from(images.len()).is_err() {
        problems.add(|| {
            format!(
                "images has {} entries; sample ids have 32 bits",
                images.len()
            )
        });
    }
    let mut sample_of: HashMap<u64, u32> = HashMap::with_capacity(images.len());
    for (index, image) in images.iter().enumerate() {
        // The first one keeps the id, so that a third one is reported beside the first.
        if let Some(&first) = sample_of.get(&image.id) {
            problems.add(|| {
                format!(
                    "images[].id {} is carried by {:?} and by {:?}: give each picture its own id",
                    image.id, images[first as usize].file_name, image.file_name
                )
            });
        } else {
            sample_of.insert(image.id, index as u32);
        }
    }
    sample_of
}

fn duplicate_annotation_ids(annotations: &[RawAnnotation], problems: &mut Collector) {
    let mut by_id: Vec<(u64, usize)> = annotations
        .iter()
        .enumerate()
        .map(|(index, a)| (a.id, index))
        .collect();
    by_id.sort_unstable();
    for pair in by_id.windows(2) {
        if let [(id, first), (next, second)] = *pair
            && id == next
        {
            problems.add(|| {
                format!(
                    "annotations[].id {id} is carried by annotations[{first}] (image_id {}) and by annotations[{second}] \
                     (image_id {}): give each annotation its own id",
                    annotations[first].image_id, annotations[second].image_id
                )
            });
        }
    }
}

/// How often a wrong value occurs, and the annotation that shows it first.
struct Dangling {
    first_annotation: u64,
    count: u64,
}

/// (sample, class) of every annotation; values that lead nowhere are reported once each.
fn labels(
    annotations: &[RawAnnotation],
    sample_of: &HashMap<u64, u32>,
    classes: &[Class],
    problems: &mut Collector,
) -> Vec<(u32, u16)> {
    let class_of: HashMap<u64, u16> = classes
        .iter()
        .enumerate()
        .map(|(index, c)| (c.coco_id, index as u16))
        .collect();
    let mut no_image: BTreeMap<u64, Dangling> = BTreeMap::new();
    let mut no_category: BTreeMap<u64, Dangling> = BTreeMap::new();
    let mut pairs = Vec::with_capacity(annotations.len());
    for annotation in annotations {
        let sample = sample_of.get(&annotation.image_id);
        let class = class_of.get(&annotation.category_id);
        if sample.is_none() {
            count(&mut no_image, annotation.image_id, annotation.id);
        }
        if class.is_none() {
            count(&mut no_category, annotation.category_id, annotation.id);
        }
        pairs.extend(sample.copied().zip(class.copied()));
    }
    for (
        image_id,
        Dangling {
            first_annotation,
            count,
        },
    ) in no_image
    {
        problems.add(|| {
            format!(
                "image_id {image_id} of annotations[].id {first_annotation} is not among the {} ids of images; \
                 {count} annotations point at it: add the picture or remove them",
                sample_of.len()
            )
        });
    }
    let (lowest, highest) = classes.iter().fold((u64::MAX, 0), |(low, high), c| {
        (low.min(c.coco_id), high.max(c.coco_id))
    });
    for (
        category_id,
        Dangling {
            first_annotation,
            count,
        },
    ) in no_category
    {
        problems.add(|| {
            format!(
                "category_id {category_id} of annotations[].id {first_annotation} is not among the {} ids of categories \
                 (from {lowest} to {highest}); {count} annotations carry it: add the category or remove them",
                classes.len()
            )
        });
    }
    pairs
}

fn count(dangling: &mut BTreeMap<u64, Dangling>, value: u64, annotation: u64) {
    dangling
        .entry(value)
        .or_insert(Dangling {
            first_annotation: annotation,
            count: 0,
        })
        .count += 1;
}

/// Pictures listed under several ids are legal, but a split that counts one twice is worth a word.
fn shared_files(images: &[RawImage]) -> Option<Warning> {
    let mut seen = HashSet::with_capacity(images.len());
    let mut again = images
        .iter()
        .filter(|image| !seen.insert(image.file_name.as_str()));
    let first = again.next()?;
    let text = format!(
        "file_name {:?} is listed under several ids, image id {} among them",
        first.file_name, first.id
    );
    Some(Warning {
        text,
        count: 1 + again.count() as u64,
    })
}
