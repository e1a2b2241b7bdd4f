//! One sample from file to pixels, and a batch from its samples.

use super::state::{OpenBatch, Piece};
use super::{Batch, LoadError, LoaderOptions, Purpose, Request};
use crate::augment::Placement;
use crate::coco::Split;
use crate::files::{BadImage, OnBadImage, describe};
use crate::jpeg::{self, RgbImage};
use crate::transform::Resampler;
use bytes::BytesMut;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

/// What became of a sample.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Its pixels are in its room.
    Good { warned: bool },
    /// Its picture cannot be used.
    Bad(BadImage),
    /// The split has no such sample.
    Unknown,
}

/// A thread's own memory, used again for every picture: fresh pages cost more than the work done in them.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    file: Vec<u8>,
    image: RgbImage,
    resampler: Resampler,
}

/// Makes samples and batches.
#[derive(Debug)]
pub(super) struct Maker {
    train: Arc<Split>,
    val: Arc<Split>,
    options: LoaderOptions,
}

impl Maker {
    pub(super) fn new(train: Arc<Split>, val: Arc<Split>, options: LoaderOptions) -> Self {
        Self {
            train,
            val,
            options,
        }
    }

    fn split(&self, purpose: Purpose) -> &Split {
        match purpose {
            Purpose::Train | Purpose::TrainPlain => &self.train,
            Purpose::Val => &self.val,
        }
    }

    fn sample_bytes(&self) -> usize {
        self.options.size as usize * self.options.size as usize * 3
    }

    /// Room for every sample of a request, cut from one allocation.
    pub(super) fn open(&self, request: &Request) -> Vec<BytesMut> {
        let mut all = BytesMut::zeroed(request.samples.len() * self.sample_bytes());
        request
            .samples
            .iter()
            .map(|_| all.split_to(self.sample_bytes()))
            .collect()
    }

    /// Fills a sample's room.
    pub(super) fn make(&self, piece: &mut Piece, scratch: &mut Scratch) -> Outcome {
        let split = self.split(piece.request.purpose);
        let id = piece.sample();
        let Some(sample) = split.samples.get(id as usize) else {
            return Outcome::Unknown;
        };
        let path = split.image_dir.join(&sample.file_name);
        match self.render(&path, id, piece, scratch) {
            Ok(warned) => Outcome::Good { warned },
            Err(reason) => Outcome::Bad(BadImage {
                sample: id,
                image_id: sample.image_id,
                path,
                reason,
            }),
        }
    }

    fn render(
        &self,
        path: &Path,
        id: u32,
        piece: &mut Piece,
        scratch: &mut Scratch,
    ) -> Result<bool, String> {
        let Scratch {
            file,
            image,
            resampler,
        } = scratch;
        file.clear();
        File::open(path)
            .and_then(|mut opened| opened.read_to_end(file))
            .map_err(|error| describe(&error))?;
        let warning = jpeg::decode_into(file, image).map_err(|error| error.to_string())?;
        let LoaderOptions {
            size,
            seed,
            train,
            flip,
            pixels,
            ..
        } = &self.options;
        let placement = match piece.request.purpose {
            Purpose::Train => {
                let epoch = piece.request.epoch;
                let drawn = train.draw(*seed, epoch, id, image.width, image.height, *size);
                Placement {
                    flip: drawn.flip && *flip,
                    ..drawn
                }
            }
            Purpose::Val | Purpose::TrainPlain => Placement::whole(image.width, image.height),
        };
        resampler
            .render(image, &placement, *size, &mut piece.room)
            .map_err(|error| error.to_string())?;
        if piece.request.purpose == Purpose::Train {
            let key = (*seed, piece.request.epoch, id);
            // The file's bytes have done their work: their memory serves again.
            pixels.apply(key, *size, &mut piece.room, file);
        }
        Ok(warning.is_some())
    }

    /// A batch from its finished samples.
    pub(super) fn assemble(&self, open: OpenBatch) -> Result<Batch, LoadError> {
        let OpenBatch {
            request,
            rooms,
            outcomes,
            ..
        } = open;
        let split = self.split(request.purpose);
        let mut batch = Batch {
            tag: request.tag,
            sample_ids: Vec::with_capacity(rooms.len()),
            pixels: Vec::new(),
            labels: vec![0.0; rooms.len() * split.num_classes],
            warnings: 0,
            skipped: Vec::new(),
        };
        let mut good_rooms = Vec::with_capacity(rooms.len());
        for ((&id, room), outcome) in request.samples.iter().zip(rooms).zip(outcomes) {
            match outcome {
                Some(Outcome::Good { warned }) => {
                    batch.warnings += u64::from(warned);
                    let row = batch.sample_ids.len() * split.num_classes;
                    let labels = split
                        .samples
                        .get(id as usize)
                        .map(|sample| &*sample.labels)
                        .unwrap_or_default();
                    for &label in labels {
                        batch.labels[row + usize::from(label)] = 1.0;
                    }
                    batch.sample_ids.push(id);
                    good_rooms.push(room);
                }
                Some(Outcome::Bad(image)) if self.options.on_bad_image == OnBadImage::Skip => {
                    batch.skipped.push(image)
                }
                Some(Outcome::Bad(image)) => return Err(LoadError::BadImage(image)),
                Some(Outcome::Unknown) | None => {
                    let (split, len) = (split.name.clone(), split.samples.len());
                    return Err(LoadError::UnknownSample { id, split, len });
                }
            }
        }
        batch
            .labels
            .truncate(batch.sample_ids.len() * split.num_classes);
        batch.pixels = join(good_rooms);
        Ok(batch)
    }
}

/// Joins neighbouring rooms without a copy; only rooms with a skipped one between them are moved together.
fn join(rooms: Vec<BytesMut>) -> Vec<u8> {
    let mut rooms = rooms.into_iter();
    let mut all = rooms.next().unwrap_or_default();
    for room in rooms {
        all.unsplit(room);
    }
    Vec::from(all)
}
