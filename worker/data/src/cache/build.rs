//! Fills a cache before it is needed: every picture of a split, on several threads.

use super::{Cache, ReadError, Reader};
use crate::coco::Split;
use crate::files::BadImage;
use crate::jpeg::{Region, RgbImage};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a build found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Pictures that are in the cache now.
    pub pictures: u64,
    /// Pictures that could not be read, by sample id.
    pub bad: Vec<BadImage>,
    /// Bytes of all pictures in the cache.
    pub bytes: u64,
    /// Whether the limit was reached, or writing failed, before all pictures were in.
    pub incomplete: bool,
}

/// Brings every picture of a split into the cache, on `threads` threads (0 counts as 1). What is there already, in its
/// present state and whole, is checked and left.
///
/// # Errors
/// When the folder cannot be counted.
pub fn build(cache: &Cache, split: &Split, threads: usize) -> io::Result<Built> {
    let next = AtomicUsize::new(0);
    let parts = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.max(1))
            .map(|_| scope.spawn(|| build_some(cache, split, &next)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<Built>>()
    });
    let mut built = Built {
        bytes: cache.room.recount()?,
        incomplete: !cache.adds.load(Ordering::Relaxed),
        ..Built::default()
    };
    for part in parts {
        built.pictures += part.pictures;
        built.bad.extend(part.bad);
    }
    built.bad.sort_unstable_by_key(|image| image.sample);
    Ok(built)
}

fn build_some(cache: &Cache, split: &Split, next: &AtomicUsize) -> Built {
    let mut built = Built::default();
    let (mut reader, mut image) = (Reader::default(), RgbImage::default());
    while cache.adds.load(Ordering::Relaxed) {
        let id = next.fetch_add(1, Ordering::Relaxed);
        let Some(sample) = split.samples.get(id) else {
            break;
        };
        let path = split.image_dir.join(&sample.file_name);
        let whole = |width, height| Region {
            left: 0,
            top: 0,
            width,
            height,
        };
        match reader.read(&path, Some(cache), whole, &mut image) {
            // The one that found no room is not in.
            Ok(_) => built.pictures += u64::from(cache.adds.load(Ordering::Relaxed)),
            Err(error) => built.bad.push(BadImage {
                sample: id as u32,
                image_id: sample.image_id,
                path,
                reason: error.reason(),
            }),
        }
    }
    built
}

impl ReadError {
    /// In the words of a [`BadImage`].
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Io(error) => crate::files::describe(error),
            Self::Decode(error) => error.to_string(),
        }
    }
}
