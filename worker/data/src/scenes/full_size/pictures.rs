//! The pictures of a set of full size: few, each under thousands of names.
//!
//! A backdrop with clutter and no object, chosen by nothing but its size and the picture's number, so that it tells
//! nothing of the labels. The two splits have no picture in common.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::SceneError;
use super::super::background::{clutter, draw, expose};
use super::super::folder::encode;
use super::super::kinds::KINDS;
use super::super::place::io;
use super::super::random::{Domain, FullSizePart, Stream};
use super::super::raster::Canvas;
use super::outline::Size;

/// Different pictures of one size in a split.
const VARIANTS: usize = 4;
/// JPEG quality: files of 16 to 40 kB, so that a check of them reads as much of each as of a photograph, and a file system
/// without links has room for them all.
const QUALITY: u8 = 88;

/// A file that stands for others.
struct Original {
    jpeg: Vec<u8>,
    /// Its newest copy: what the next one is linked to.
    path: PathBuf,
}

/// The different pictures of one split, made when they are first wanted.
pub(super) struct Stock {
    seed: u64,
    val: bool,
    originals: BTreeMap<(Size, usize), Original>,
}

impl Stock {
    pub(super) fn new(seed: u64, val: bool) -> Self {
        Stock {
            seed,
            val,
            originals: BTreeMap::new(),
        }
    }

    /// Puts picture number `index` at `path`; gives its length in bytes.
    pub(super) fn store(
        &mut self,
        index: usize,
        size: Size,
        path: &Path,
    ) -> Result<u64, SceneError> {
        let variant = index % VARIANTS;
        let key = (size, variant);
        if let Some(original) = self.originals.get_mut(&key) {
            // A file system may know no links, or no more than so many of a file.
            if fs::hard_link(&original.path, path).is_err() {
                fs::write(path, &original.jpeg).map_err(io("write", path))?;
                original.path = path.to_owned();
            }
            return Ok(original.jpeg.len() as u64);
        }
        let jpeg = self
            .picture(size, variant)
            .map_err(|source| SceneError::Encode {
                path: path.to_owned(),
                source,
            })?;
        fs::write(path, &jpeg).map_err(io("write", path))?;
        let length = jpeg.len() as u64;
        let path = path.to_owned();
        self.originals.insert(key, Original { jpeg, path });
        Ok(length)
    }

    /// How many different pictures there are, and their size in bytes.
    pub(super) fn different(&self) -> (usize, u64) {
        let bytes = self
            .originals
            .values()
            .map(|original| original.jpeg.len() as u64);
        (self.originals.len(), bytes.sum())
    }

    fn picture(
        &self,
        (width, height): Size,
        variant: usize,
    ) -> Result<Vec<u8>, jpeg_encoder::EncodingError> {
        let domain = Domain::FullSize(FullSizePart::Pixels, self.val);
        let number = (width * 1000 + height) * VARIANTS + variant;
        let mut random = Stream::new(self.seed, domain, number as u64);
        let mut canvas = Canvas::new(width, height);
        let kind = random.pick(&KINDS);
        draw(&mut canvas, &kind.backdrop, &mut random.fork());
        clutter(&mut canvas, &mut random.fork());
        expose(&mut canvas, &mut random.fork());
        encode(&canvas, false, QUALITY)
    }
}
