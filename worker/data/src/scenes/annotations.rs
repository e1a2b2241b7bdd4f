//! The annotation file of a split, `instances_*.json`, in COCO's own shape.

use std::io::Write;

use serde::Serialize;

use super::SceneSet;
use super::categories::{CATEGORIES, Supercategory};
use super::picture::{Picture, Split};
use super::silhouette::Point;

/// What the file says of one picture, without the ids that depend on the pictures before it.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) index: usize,
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) objects: Vec<Object>,
    /// Size of the JPEG file in bytes.
    pub(super) bytes: u64,
}

/// A labelled object as the file has it.
#[derive(Clone, Debug)]
pub(super) struct Object {
    class: usize,
    polygon: Vec<f64>,
    bbox: [f64; 4],
    visible: usize,
}

impl Record {
    /// The record of a picture that was stored in `bytes` bytes.
    pub(super) fn new(index: usize, picture: &Picture, bytes: u64) -> Self {
        let objects = picture
            .labelled
            .iter()
            .map(|seen| Object {
                class: seen.class,
                polygon: seen
                    .outline
                    .iter()
                    .flat_map(|&(x, y)| [hundredths(x), hundredths(y)])
                    .collect(),
                bbox: bounds(&seen.outline),
                visible: seen.visible,
            })
            .collect();
        Record {
            index,
            width: picture.canvas.width,
            height: picture.canvas.height,
            objects,
            bytes,
        }
    }

    /// How many different classes are labelled.
    pub(super) fn labels(&self) -> usize {
        let mut classes: Vec<usize> = self.objects.iter().map(|object| object.class).collect();
        classes.sort_unstable();
        classes.dedup();
        classes.len()
    }
}

/// COCO's coordinates have two decimals.
fn hundredths(x: f32) -> f64 {
    (f64::from(x) * 100.0).round() / 100.0
}

/// `[left, top, width, height]`.
fn bounds(outline: &[Point]) -> [f64; 4] {
    let min = |of: fn(&Point) -> f32| outline.iter().map(of).fold(f32::INFINITY, f32::min);
    let max = |of: fn(&Point) -> f32| outline.iter().map(of).fold(0.0, f32::max);
    let (left, top) = (min(|p| p.0), min(|p| p.1));
    [left, top, max(|p| p.0) - left, max(|p| p.1) - top].map(hundredths)
}

/// Id of the picture number `index` of a split. As in COCO, no id is in both splits.
pub(super) fn image_id(set: &SceneSet, split: Split, index: usize) -> usize {
    match split {
        Split::Train => index + 1,
        Split::Val => set.train + index + 1,
    }
}

/// File name of the picture with this id.
pub(super) fn file_name(id: usize) -> String {
    format!("{id:012}.jpg")
}

/// Writes the file; `records` in order of their index.
pub(super) fn write(
    set: &SceneSet,
    split: Split,
    records: &[Record],
    out: impl Write,
) -> serde_json::Result<()> {
    let file = File {
        info: Info {
            description: format!(
                "drawn scenes in COCO's format: no photographs, every picture is computed (seed {}, scale {}); \
                 a segmentation is an object's whole outline, its area what can be seen of it",
                set.seed, set.scale
            ),
            url: "",
            version: "1.0",
            year: 2017,
            contributor: "worker scenes",
            date_created: "2017/09/01",
        },
        licenses: [License::CC0],
        images: records
            .iter()
            .map(|record| {
                let id = image_id(set, split, record.index);
                Image {
                    license: 1,
                    file_name: file_name(id),
                    height: record.height,
                    width: record.width,
                    id,
                }
            })
            .collect(),
        annotations: records
            .iter()
            .flat_map(|record| record.objects.iter().map(move |object| (record, object)))
            .enumerate()
            .map(|(n, (record, object))| Annotation {
                segmentation: [&object.polygon],
                area: object.visible as f64,
                iscrowd: 0,
                image_id: image_id(set, split, record.index),
                bbox: object.bbox,
                category_id: CATEGORIES[object.class].id,
                id: n + 1,
            })
            .collect(),
        categories: categories(),
    };
    serde_json::to_writer(out, &file)
}

/// `categories` of COCO.
pub(super) fn categories() -> Vec<Category> {
    let listed = CATEGORIES.iter().map(|c| Category {
        supercategory: Supercategory::name(c.supercategory),
        id: c.id,
        name: c.name,
    });
    listed.collect()
}

// The keys in COCO's order.
#[derive(Serialize)]
struct File<'a> {
    info: Info,
    licenses: [License; 1],
    images: Vec<Image>,
    annotations: Vec<Annotation<'a>>,
    categories: Vec<Category>,
}

#[derive(Serialize)]
pub(super) struct Info {
    pub(super) description: String,
    pub(super) url: &'static str,
    pub(super) version: &'static str,
    pub(super) year: u32,
    pub(super) contributor: &'static str,
    pub(super) date_created: &'static str,
}

#[derive(Serialize)]
pub(super) struct License {
    url: &'static str,
    id: u32,
    name: &'static str,
}

impl License {
    pub(super) const CC0: License = License {
        url: "https://creativecommons.org/publicdomain/zero/1.0/",
        id: 1,
        name: "CC0 1.0: drawn by a program, free for any use",
    };
}

#[derive(Serialize)]
struct Image {
    license: u32,
    file_name: String,
    height: usize,
    width: usize,
    id: usize,
}

#[derive(Serialize)]
struct Annotation<'a> {
    segmentation: [&'a Vec<f64>; 1],
    area: f64,
    iscrowd: u8,
    image_id: usize,
    bbox: [f64; 4],
    category_id: u32,
    id: usize,
}

#[derive(Serialize)]
pub(super) struct Category {
    supercategory: &'static str,
    id: u32,
    name: &'static str,
}
