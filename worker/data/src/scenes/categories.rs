//! COCO's 80 categories: names, sparse ids and supercategories, in COCO's order.

use crate::coco::{Class, Group, by_supercategory};

/// A category as `instances_*.json` lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Category {
    /// COCO's id, 1 to 90 with gaps.
    pub(super) id: u32,
    pub(super) name: &'static str,
    pub(super) supercategory: Supercategory,
}

/// COCO's 12 supercategories, in the order of their first category.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Supercategory {
    Person,
    Vehicle,
    Outdoor,
    Animal,
    Accessory,
    Sports,
    Kitchen,
    Food,
    Furniture,
    Electronic,
    Appliance,
    Indoor,
}

impl Supercategory {
    /// The name in the file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Supercategory::Person => "person",
            Supercategory::Vehicle => "vehicle",
            Supercategory::Outdoor => "outdoor",
            Supercategory::Animal => "animal",
            Supercategory::Accessory => "accessory",
            Supercategory::Sports => "sports",
            Supercategory::Kitchen => "kitchen",
            Supercategory::Food => "food",
            Supercategory::Furniture => "furniture",
            Supercategory::Electronic => "electronic",
            Supercategory::Appliance => "appliance",
            Supercategory::Indoor => "indoor",
        }
    }
}

/// The index in [`CATEGORIES`] of the category of this name.
pub(super) fn class_named(name: &str) -> Option<usize> {
    CATEGORIES.iter().position(|category| category.name == name)
}

const fn category(id: u32, name: &'static str, supercategory: Supercategory) -> Category {
    Category {
        id,
        name,
        supercategory,
    }
}

use Supercategory::*;

/// COCO's classes and groups, as reading its annotation files gives them.
#[must_use]
pub fn coco_categories() -> (Vec<Class>, Vec<Group>) {
    let mut classes = CATEGORIES.map(|category| Class {
        name: category.name.to_owned(),
        coco_id: category.id.into(),
        group: 0,
    });
    let supercategories = CATEGORIES
        .iter()
        .map(|category| category.supercategory.name());
    let groups = by_supercategory(&mut classes, supercategories);
    (classes.into(), groups)
}

/// All 80, ascending by id.
pub(super) const CATEGORIES: [Category; 80] = [
    category(1, "person", Person),
    category(2, "bicycle", Vehicle),
    category(3, "car", Vehicle),
    category(4, "motorcycle", Vehicle),
    category(5, "airplane", Vehicle),
    category(6, "bus", Vehicle),
    category(7, "train", Vehicle),
    category(8, "truck", Vehicle),
    category(9, "boat", Vehicle),
    category(10, "traffic light", Outdoor),
    category(11, "fire hydrant", Outdoor),
    category(13, "stop sign", Outdoor),
    category(14, "parking meter", Outdoor),
    category(15, "bench", Outdoor),
    category(16, "bird", Animal),
    category(17, "cat", Animal),
    category(18, "dog", Animal),
    category(19, "horse", Animal),
    category(20, "sheep", Animal),
    category(21, "cow", Animal),
    category(22, "elephant", Animal),
    category(23, "bear", Animal),
    category(24, "zebra", Animal),
    category(25, "giraffe", Animal),
    category(27, "backpack", Accessory),
    category(28, "umbrella", Accessory),
    category(31, "handbag", Accessory),
    category(32, "tie", Accessory),
    category(33, "suitcase", Accessory),
    category(34, "frisbee", Sports),
    category(35, "skis", Sports),
    category(36, "snowboard", Sports),
    category(37, "sports ball", Sports),
    category(38, "kite", Sports),
    category(39, "baseball bat", Sports),
    category(40, "baseball glove", Sports),
    category(41, "skateboard", Sports),
    category(42, "surfboard", Sports),
    category(43, "tennis racket", Sports),
    category(44, "bottle", Kitchen),
    category(46, "wine glass", Kitchen),
    category(47, "cup", Kitchen),
    category(48, "fork", Kitchen),
    category(49, "knife", Kitchen),
    category(50, "spoon", Kitchen),
    category(51, "bowl", Kitchen),
    category(52, "banana", Food),
    category(53, "apple", Food),
    category(54, "sandwich", Food),
    category(55, "orange", Food),
    category(56, "broccoli", Food),
    category(57, "carrot", Food),
    category(58, "hot dog", Food),
    category(59, "pizza", Food),
    category(60, "donut", Food),
    category(61, "cake", Food),
    category(62, "chair", Furniture),
    category(63, "couch", Furniture),
    category(64, "potted plant", Furniture),
    category(65, "bed", Furniture),
    category(67, "dining table", Furniture),
    category(70, "toilet", Furniture),
    category(72, "tv", Electronic),
    category(73, "laptop", Electronic),
    category(74, "mouse", Electronic),
    category(75, "remote", Electronic),
    category(76, "keyboard", Electronic),
    category(77, "cell phone", Electronic),
    category(78, "microwave", Appliance),
    category(79, "oven", Appliance),
    category(80, "toaster", Appliance),
    category(81, "sink", Appliance),
    category(82, "refrigerator", Appliance),
    category(84, "book", Indoor),
    category(85, "clock", Indoor),
    category(86, "vase", Indoor),
    category(87, "scissors", Indoor),
    category(88, "teddy bear", Indoor),
    category(89, "hair drier", Indoor),
    category(90, "toothbrush", Indoor),
];
