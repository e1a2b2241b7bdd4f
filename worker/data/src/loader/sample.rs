//! One sample from file to pixels, and a batch from its samples.

use super::state::{OpenBatch, Piece};
use super::{Batch, LoadError, LoaderOptions, Purpose, Request};
use crate::augment::Placement;
use crate::cache::Reader;
use crate::coco::Split;
use crate::files::{BadImage, OnBadImage};
use crate::jpeg::RgbImage;
use crate::transform::Resampler;
use bytes::BytesMut;
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
    reader: Reader,
    image: RgbImage,
    resampler: Resampler,
    augmented: Vec<u8>,
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
            Err(reason) => self.bad(piece, reason),
        }
    }

    /// Of a sample at which this program has failed.
    pub(super) fn cannot(&self, piece: &Piece) -> Outcome {
        let reason =
            "this program failed at it (its log says where): please report it with the picture";
        self.bad(piece, reason.to_owned())
    }

    fn bad(&self, piece: &Piece, reason: String) -> Outcome {
        let split = self.split(piece.request.purpose);
        let id = piece.sample();
        match split.samples.get(id as usize) {
            Some(sample) => Outcome::Bad(BadImage {
                sample: id,
                image_id: sample.image_id,
                path: split.image_dir.join(&sample.file_name),
                reason,
            }),
            None => Outcome::Unknown,
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
            reader,
            image,
            resampler,
            augmented,
        } = scratch;
        // Only what the sample shows is decoded.
        let place = |width, height| self.place(id, &piece.request, width, height);
        let shown = reader
            .read(
                path,
                self.options.cache.as_deref(),
                |width, height| place(width, height).region(),
                image,
            )
            .map_err(|error| error.reason())?;
        let placement = place(shown.size.0, shown.size.1);
        let (origin, size) = (shown.origin, self.options.size);
        resampler
            .render_part(image, origin, &placement, size, &mut piece.room)
            .map_err(|error| error.to_string())?;
        if piece.request.purpose == Purpose::Train {
            let key = (self.options.seed, piece.request.epoch, id);
            self.options
                .pixels
                .apply(key, size, &mut piece.room, augmented);
        }
        Ok(shown.warning.is_some())
    }

    /// What a sample shows of its picture.
    fn place(&self, id: u32, request: &Request, width: u32, height: u32) -> Placement {
        let options = &self.options;
        match request.purpose {
            Purpose::Train => {
                let drawn = options.train.draw(
                    options.seed,
                    request.epoch,
                    id,
                    width,
                    height,
                    options.size,
                );
                Placement {
                    flip: drawn.flip && options.flip,
                    ..drawn
                }
            }
            Purpose::Val | Purpose::TrainPlain => Placement::whole(width, height),
        }
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
