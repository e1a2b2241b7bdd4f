//! The numbers of COCO 2014, and what part of them a set has.

/// What one split has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    /// Pictures in all.
    pub(super) pictures: usize,
    /// Of them, those with an annotation.
    pub(super) labelled: usize,
    /// Annotations.
    pub(super) annotations: usize,
}

/// COCO 2014: training, validation.
pub(super) const COCO_2014: [Counts; 2] = [
    Counts {
        pictures: 82_783,
        labelled: 82_081,
        annotations: 604_907,
    },
    Counts {
        pictures: 40_504,
        labelled: 40_137,
        annotations: 291_875,
    },
];

/// Image ids of COCO 2014 go up to this; no id is in both splits.
pub(super) const HIGHEST_ID: u32 = 581_929;

impl Counts {
    /// A part of it, for tests.
    pub(super) fn divided(self, divisor: usize) -> Self {
        Counts {
            pictures: self.pictures / divisor,
            labelled: self.labelled / divisor,
            annotations: self.annotations / divisor,
        }
    }
}
