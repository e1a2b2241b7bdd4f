//! The eight kinds of scene: each sets which classes meet and what is behind them.

use super::background::{Backdrop, Pattern};
use super::raster::Colour;

/// A kind of scene.
#[derive(Debug)]
pub(super) struct Kind {
    /// Names of the classes that occur in it.
    pub(super) classes: &'static [&'static str],
    /// What is behind the objects.
    pub(super) backdrop: Backdrop,
}

const SKY: [Colour; 3] = [
    [150.0, 190.0, 225.0],
    [205.0, 205.0, 200.0],
    [225.0, 170.0, 140.0],
];
const GROUND: [Colour; 3] = [
    [110.0, 150.0, 80.0],
    [190.0, 170.0, 110.0],
    [140.0, 115.0, 95.0],
];
const STONE: [Colour; 3] = [
    [125.0, 125.0, 130.0],
    [170.0, 120.0, 100.0],
    [190.0, 180.0, 160.0],
];
const WALL: [Colour; 3] = [
    [215.0, 205.0, 185.0],
    [150.0, 170.0, 175.0],
    [175.0, 140.0, 130.0],
];
const WOOD: [Colour; 3] = [
    [165.0, 120.0, 80.0],
    [120.0, 90.0, 75.0],
    [200.0, 170.0, 130.0],
];

/// All eight. A class may be at home in several; every class is at home somewhere (tested).
pub(super) static KINDS: [Kind; 8] = [
    // Street.
    Kind {
        classes: &[
            "person",
            "bicycle",
            "car",
            "motorcycle",
            "bus",
            "truck",
            "traffic light",
            "fire hydrant",
            "stop sign",
            "parking meter",
            "bench",
            "handbag",
        ],
        backdrop: Backdrop {
            far: (Pattern::Bricks, &STONE),
            near: (Pattern::Plain, &STONE),
            horizon: (0.4, 0.6),
        },
    },
    // Pasture.
    Kind {
        classes: &[
            "person", "train", "bird", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
            "giraffe",
        ],
        backdrop: Backdrop {
            far: (Pattern::Clouds, &SKY),
            near: (Pattern::Blades, &GROUND),
            horizon: (0.3, 0.5),
        },
    },
    // Shore.
    Kind {
        classes: &[
            "person",
            "airplane",
            "boat",
            "bird",
            "umbrella",
            "backpack",
            "frisbee",
            "kite",
            "surfboard",
        ],
        backdrop: Backdrop {
            far: (Pattern::Clouds, &SKY),
            near: (Pattern::Waves, &SKY),
            horizon: (0.35, 0.55),
        },
    },
    // Pitch.
    Kind {
        classes: &[
            "person",
            "backpack",
            "skis",
            "snowboard",
            "sports ball",
            "baseball bat",
            "baseball glove",
            "skateboard",
            "tennis racket",
            "bench",
        ],
        backdrop: Backdrop {
            far: (Pattern::Panels, &STONE),
            near: (Pattern::Bands, &GROUND),
            horizon: (0.2, 0.4),
        },
    },
    // Kitchen.
    Kind {
        classes: &[
            "microwave",
            "oven",
            "toaster",
            "sink",
            "refrigerator",
            "bottle",
            "cup",
            "knife",
            "spoon",
            "bowl",
            "banana",
            "apple",
            "orange",
            "carrot",
        ],
        backdrop: Backdrop {
            far: (Pattern::Tiles, &WALL),
            near: (Pattern::Panels, &WOOD),
            horizon: (0.55, 0.75),
        },
    },
    // Table.
    Kind {
        classes: &[
            "dining table",
            "chair",
            "wine glass",
            "cup",
            "fork",
            "sandwich",
            "broccoli",
            "hot dog",
            "pizza",
            "donut",
            "cake",
            "orange",
        ],
        backdrop: Backdrop {
            far: (Pattern::Plain, &WALL),
            near: (Pattern::Planks, &WOOD),
            horizon: (0.05, 0.2),
        },
    },
    // Living room.
    Kind {
        classes: &[
            "chair",
            "couch",
            "potted plant",
            "tv",
            "remote",
            "cat",
            "dog",
            "book",
            "clock",
            "vase",
            "teddy bear",
            "laptop",
        ],
        backdrop: Backdrop {
            far: (Pattern::Panels, &WALL),
            near: (Pattern::Planks, &WOOD),
            horizon: (0.6, 0.8),
        },
    },
    // Bedroom and bath.
    Kind {
        classes: &[
            "bed",
            "toilet",
            "sink",
            "laptop",
            "mouse",
            "keyboard",
            "cell phone",
            "tie",
            "suitcase",
            "scissors",
            "hair drier",
            "toothbrush",
            "handbag",
            "clock",
        ],
        backdrop: Backdrop {
            far: (Pattern::Plain, &WALL),
            near: (Pattern::Tiles, &STONE),
            horizon: (0.5, 0.7),
        },
    },
];

#[cfg(test)]
mod tests {
    use super::super::categories::{CATEGORIES, class_named};
    use super::*;

    #[test]
    fn every_class_is_at_home_in_a_kind_and_every_name_is_a_class() {
        for category in CATEGORIES {
            assert!(
                KINDS
                    .iter()
                    .any(|kind| kind.classes.contains(&category.name)),
                "{} has no home",
                category.name
            );
        }
        for kind in &KINDS {
            for name in kind.classes {
                assert!(class_named(name).is_some(), "{name} is no class");
            }
        }
    }
}
