//! The folder of a drawn set: its manifest, its pictures as files, its annotation files.

use std::fs::{self, File};
use std::io::{BufWriter, Write};

use serde::{Deserialize, Serialize};

use super::annotations::{self, Record, file_name, image_id};
use super::picture::{Picture, Split};
use super::place::{Draft, Manifest, annotation_path, io};
use super::raster::Canvas;
use super::{SceneError, SceneSet, SplitSummary};

/// Raised whenever the same parameters give other pictures, so that an old folder is not taken for a new one.
const DRAWING: u32 = 1;
/// JPEG quality of the pictures, about COCO's own.
const QUALITY: u8 = 90;

/// What a drawn set was drawn from.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Drawn {
    drawing: u32,
    train: usize,
    val: usize,
    seed: u64,
    scale: f32,
    splits: [SplitSummary; 2],
}

impl Manifest for Drawn {
    const SPLITS: [&'static str; 2] = [Split::Train.name(), Split::Val.name()];

    fn splits(&self) -> [SplitSummary; 2] {
        self.splits
    }
}

impl Drawn {
    /// In which parameters this is another set than `set`.
    pub(super) fn differs(&self, set: &SceneSet) -> Option<String> {
        let same = (self.drawing, self.train, self.val, self.seed, self.scale)
            == (DRAWING, set.train, set.val, set.seed, set.scale);
        (!same).then(|| {
            format!(
                "{} training and {} validation pictures, seed {}, scale {}, drawing {}",
                self.train, self.val, self.seed, self.scale, self.drawing
            )
        })
    }
}

/// Stores a picture and says what its annotation file is to say of it.
pub(super) fn store(
    draft: &Draft,
    set: &SceneSet,
    split: Split,
    index: usize,
    picture: &Picture,
) -> Result<Record, SceneError> {
    let name = file_name(image_id(set, split, index));
    let path = draft.path().join(split.name()).join(name);
    let jpeg =
        encode(&picture.canvas, picture.gray, QUALITY).map_err(|source| SceneError::Encode {
            path: path.clone(),
            source,
        })?;
    fs::write(&path, &jpeg).map_err(io("write", &path))?;
    Ok(Record::new(index, picture, jpeg.len() as u64))
}

/// Writes annotations and manifest, then moves the whole into place.
pub(super) fn finish(
    draft: Draft,
    set: &SceneSet,
    train: &[Record],
    val: &[Record],
) -> Result<[SplitSummary; 2], SceneError> {
    for (split, records) in [(Split::Train, train), (Split::Val, val)] {
        let path = annotation_path(draft.path(), split.name());
        let mut out = BufWriter::new(File::create(&path).map_err(io("create", &path))?);
        annotations::write(set, split, records, &mut out)
            .map_err(std::io::Error::from)
            .and_then(|()| out.flush())
            .map_err(io("write", &path))?;
    }
    let splits = [SplitSummary::of(train), SplitSummary::of(val)];
    draft.finish(&Drawn {
        drawing: DRAWING,
        train: set.train,
        val: set.val,
        seed: set.seed,
        scale: set.scale,
        splits,
    })?;
    Ok(splits)
}

/// The picture as a JPEG file: chroma at half resolution as in most of COCO, one component if it is grey.
pub(super) fn encode(
    canvas: &Canvas,
    gray: bool,
    quality: u8,
) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
    let byte = |value: f32| (value + 0.5) as u8;
    let (pixels, colour): (Vec<u8>, _) = if gray {
        // The luma of JPEG itself (ITU-R BT.601).
        let luma = canvas
            .pixels
            .iter()
            .map(|&[r, g, b]| byte(0.299 * r + 0.587 * g + 0.114 * b))
            .collect();
        (luma, jpeg_encoder::ColorType::Luma)
    } else {
        (
            canvas
                .pixels
                .iter()
                .flat_map(|pixel| pixel.map(byte))
                .collect(),
            jpeg_encoder::ColorType::Rgb,
        )
    };
    let mut jpeg = Vec::with_capacity(pixels.len() / 4);
    let mut encoder = jpeg_encoder::Encoder::new(&mut jpeg, quality);
    encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
    let side =
        |n: usize| u16::try_from(n).expect("no picture is wider or higher than COCO's, 640 pixels");
    encoder.encode(&pixels, side(canvas.width), side(canvas.height), colour)?;
    Ok(jpeg)
}
