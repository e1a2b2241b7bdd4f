//! Decode once: a folder of decoded pictures, shared between workers and runs.
//!
//! A picture is one file of raw RGB rows, with a checksum for every 16 rows, so that a crop reads its own rows alone. It
//! belongs to a path, a size and a time of change: a changed picture is decoded again. Files are written under another
//! name, locked, and renamed, so whoever is killed leaves nothing half, and what it leaves is known by its lock being
//! gone; what is cut or changed later is noticed, said once, and decoded again.
//!
//! Rows are read by position into memory that is used again, not through a memory map: a file that is cut while it is in
//! use is then a short read and no bus error, and the copy costs less than a map's page faults.

mod build;
mod entry;
mod room;

pub use build::{Built, build};

use crate::jpeg::{DecodeError, Decoder, Header, Region, RgbImage, Warning};
use entry::Unusable;
use room::Room;
use std::fmt;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use xxhash_rust::xxh3::xxh3_128;

/// A state of a picture's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    size: u64,
    seconds: i64,
    nanoseconds: u32,
}

impl Identity {
    fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec() as u32,
        }
    }
}

/// What people are told, each at most once in a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    Damaged,
    Unreadable,
    Unwritable,
    Full,
}

/// A folder of decoded pictures.
pub struct Cache {
    folder: PathBuf,
    room: Room,
    /// Whether pictures are still added: not after a failed write, and not when it is full.
    adds: AtomicBool,
    told: [AtomicBool; 4],
    tell: Box<dyn Fn(&str) + Send + Sync>,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// A thread's memory for decoding pictures with or without a cache, used again for every picture.
#[derive(Debug, Default)]
pub struct Reader {
    file: Vec<u8>,
    head: Vec<u8>,
    decoder: Decoder,
}

/// Why a picture has no pixels.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Its file cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its file is no picture we can show.
    #[error(transparent)]
    Decode(#[from] DecodeError),
}

/// Where the pixels in the image lie in their picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Width and height of the whole picture.
    pub size: (u32, u32),
    /// Column and row of the image's first pixel.
    pub origin: (u32, u32),
    /// Harmless damage.
    pub warning: Option<Warning>,
}

impl Reader {
    /// Reads a picture's pixels, at least those of the region that `choose` picks by width and height, from the cache or
    /// else from its JPEG; what was not in the cache is put there.
    ///
    /// # Errors
    /// [`ReadError`]; the image's content is then unspecified.
    pub fn read(
        &mut self,
        path: &Path,
        cache: Option<&Cache>,
        choose: impl Fn(u32, u32) -> Region,
        image: &mut RgbImage,
    ) -> Result<Shown, ReadError> {
        let Some(cache) = cache else {
            self.load(path)?;
            return self.decode(choose, image);
        };
        let identity = Identity::of(&fs::metadata(path)?);
        if let Some(shown) = cache.fetch(path, &identity, &choose, &mut self.head, image) {
            return Ok(shown);
        }
        // What was read must be what the identity is of.
        let seen = self.load(path)?;
        if !cache.adds.load(Ordering::Relaxed) {
            return self.decode(choose, image);
        }
        let shown = self.decode(
            |width, height| Region {
                left: 0,
                top: 0,
                width,
                height,
            },
            image,
        )?;
        if seen == identity {
            cache.store(path, &identity, image, shown.warning);
        }
        Ok(shown)
    }

    fn load(&mut self, path: &Path) -> io::Result<Identity> {
        let mut opened = File::open(path)?;
        self.file.clear();
        opened.read_to_end(&mut self.file)?;
        opened.metadata().map(|metadata| Identity::of(&metadata))
    }

    fn decode(
        &mut self,
        choose: impl Fn(u32, u32) -> Region,
        image: &mut RgbImage,
    ) -> Result<Shown, ReadError> {
        let choose = |header: &Header| choose(header.width, header.height);
        let decoded = self.decoder.decode(&self.file, choose, image)?;
        Ok(Shown {
            size: (decoded.header.width, decoded.header.height),
            origin: (decoded.region.left, decoded.region.top),
            warning: decoded.warning,
        })
    }
}

impl Cache {
    /// Opens or makes the folder. At most `limit` bytes of pictures are kept there, by all who share it; `tell` hears once
    /// of each kind of trouble, all of which costs time and nothing else.
    ///
    /// # Errors
    /// When the folder cannot be made or its size not be found out.
    pub fn open(
        folder: &Path,
        limit: u64,
        tell: impl Fn(&str) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            room: Room::open(folder, limit)?,
            folder: folder.to_owned(),
            adds: AtomicBool::new(true),
            told: Default::default(),
            tell: Box::new(tell),
        })
    }

    fn place(&self, path: &Path) -> PathBuf {
        let name = format!("{:032x}", xxh3_128(path.as_os_str().as_bytes()));
        self.folder.join(&name[..2]).join(&name[2..])
    }

    fn fetch(
        &self,
        path: &Path,
        identity: &Identity,
        choose: impl FnOnce(u32, u32) -> Region,
        head: &mut Vec<u8>,
        image: &mut RgbImage,
    ) -> Option<Shown> {
        let place = self.place(path);
        let found = File::open(&place)
            .map_err(Unusable::Io)
            .and_then(|file| entry::read(&file, identity, choose, head, image));
        let found = match found {
            Ok(found) => found,
            Err(Unusable::Stale) => return None,
            Err(Unusable::Io(error)) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(Unusable::Io(error)) => {
                let text = format!("{}: {error}; decoding the picture again", place.display());
                self.tell_once(Notice::Unreadable, &text);
                return None;
            }
            Err(Unusable::Damaged(reason)) => {
                let (place, path) = (place.display(), path.display());
                let text =
                    format!("cached picture {place} is damaged ({reason}); decoding {path} again");
                self.tell_once(Notice::Damaged, &text);
                return None;
            }
        };
        Some(Shown {
            size: (found.width, found.height),
            origin: (0, found.top),
            warning: found.warning,
        })
    }

    /// Keeps a whole picture, if there is room.
    fn store(&self, path: &Path, identity: &Identity, image: &RgbImage, warning: Option<Warning>) {
        let place = self.place(path);
        match self.write(&place, identity, image, warning) {
            Ok(true) => {}
            Ok(false) => {
                self.adds.store(false, Ordering::Relaxed);
                let text = format!(
                    "{} is full; further pictures are decoded each time, raise data.cache_gib",
                    self.folder.display()
                );
                self.tell_once(Notice::Full, &text);
            }
            Err(error) => {
                self.adds.store(false, Ordering::Relaxed);
                let text = format!(
                    "{}: {error}; nothing more is cached in this process",
                    place.display()
                );
                self.tell_once(Notice::Unwritable, &text);
            }
        }
    }

    /// False when there is no room.
    fn write(
        &self,
        place: &Path,
        identity: &Identity,
        image: &RgbImage,
        warning: Option<Warning>,
    ) -> io::Result<bool> {
        let new = entry::length(image.width, image.height);
        let Some(part) = self.room.take(place, new)? else {
            return Ok(false);
        };
        let mut file = &part.file;
        let written = file
            .write_all(&entry::head(image, identity, warning))
            .and_then(|()| file.write_all(&image.pixels))
            .and_then(|()| self.room.keep(&part, place));
        if let Err(error) = written {
            // The rest of a failed write only takes room, and whoever opens the folder next clears it away.
            let _ = self.room.give_up(&part);
            return Err(error);
        }
        Ok(true)
    }

    fn tell_once(&self, notice: Notice, text: &str) {
        if !self.told[notice as usize].swap(true, Ordering::Relaxed) {
            (self.tell)(text);
        }
    }
}
