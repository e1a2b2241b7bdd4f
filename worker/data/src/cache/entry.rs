//! One cached picture as bytes: a header, a checksum for every band of rows, the rows.
//!
//! ```text
//! magic 8 | width 4 | height 4 | source size 8 | source seconds 8 | source nanoseconds 4 | warning kind 4, count 8 |
//! checksum of this header and the sums 8 | sums 8 each | [height, width, 3]
//! ```
//! All numbers are little-endian.

use super::Identity;
use crate::jpeg::{Region, RgbImage, Warning};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use xxhash_rust::xxh3::xxh3_64;

/// Format and version; another one is another cache.
const MAGIC: [u8; 8] = *b"HGATPX01";
/// Rows that share a checksum: a crop reads at most 15 rows too many at each edge.
const BAND: u32 = 16;
/// Bytes before the sums.
const FIXED: usize = 56;
/// What the first read takes in: header and sums of any picture of up to 7,900 rows.
const FIRST_READ: usize = 4096;

/// Why an entry gives no pixels.
#[derive(Debug)]
pub(super) enum Unusable {
    /// It is of another state of the picture.
    Stale,
    /// It is cut or changed.
    Damaged(&'static str),
    /// It cannot be read.
    Io(io::Error),
}

/// The rows of an entry that a region needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// The whole picture.
    pub(super) width: u32,
    pub(super) height: u32,
    /// First row of the image.
    pub(super) top: u32,
    pub(super) warning: Option<Warning>,
}

fn bands(height: u32) -> usize {
    height.div_ceil(BAND) as usize
}

/// Bytes of an entry.
pub(super) fn length(width: u32, height: u32) -> u64 {
    (FIXED + bands(height) * 8) as u64 + u64::from(width) * u64::from(height) * 3
}

/// Everything before the rows.
pub(super) fn head(image: &RgbImage, identity: &Identity, warning: Option<Warning>) -> Vec<u8> {
    let band = image.width as usize * 3 * BAND as usize;
    let sums = image.pixels.chunks(band.max(1)).map(xxh3_64);
    let (kind, count) = match warning {
        None => (0_u32, 0),
        Some(Warning::ExtraBytes(count)) => (1, count as u64),
        Some(Warning::TrailingBytes(count)) => (2, count as u64),
    };
    let mut head = Vec::with_capacity(FIXED + bands(image.height) * 8);
    head.extend_from_slice(&MAGIC);
    head.extend_from_slice(&image.width.to_le_bytes());
    head.extend_from_slice(&image.height.to_le_bytes());
    head.extend_from_slice(&identity.size.to_le_bytes());
    head.extend_from_slice(&identity.seconds.to_le_bytes());
    head.extend_from_slice(&identity.nanoseconds.to_le_bytes());
    head.extend_from_slice(&kind.to_le_bytes());
    head.extend_from_slice(&count.to_le_bytes());
    head.extend_from_slice(&[0; 8]);
    sums.for_each(|sum| head.extend_from_slice(&sum.to_le_bytes()));
    let sum = xxh3_64(&head);
    head[FIXED - 8..FIXED].copy_from_slice(&sum.to_le_bytes());
    head
}

/// Reads the rows that `choose` needs of a picture of a size into `image`; the image begins at row `top`.
pub(super) fn read(
    file: &File,
    identity: &Identity,
    choose: impl FnOnce(u32, u32) -> Region,
    head: &mut Vec<u8>,
    image: &mut RgbImage,
) -> Result<Found, Unusable> {
    head.resize(FIRST_READ, 0);
    let mut got = 0;
    while got < FIRST_READ {
        match file.read_at(&mut head[got..], got as u64) {
            Ok(0) => break,
            Ok(count) => got += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Unusable::Io(error)),
        }
    }
    let cut = Unusable::Damaged("it ends early");
    let Some(fixed) = head[..got].first_chunk::<FIXED>() else {
        return Err(cut);
    };
    let mut fields = Fields(fixed);
    if fields.take() != MAGIC {
        return Err(Unusable::Damaged("it is no cached picture"));
    }
    let (width, height) = (
        u32::from_le_bytes(fields.take()),
        u32::from_le_bytes(fields.take()),
    );
    let of = Identity {
        size: u64::from_le_bytes(fields.take()),
        seconds: i64::from_le_bytes(fields.take()),
        nanoseconds: u32::from_le_bytes(fields.take()),
    };
    let kind = u32::from_le_bytes(fields.take());
    let count = u64::from_le_bytes(fields.take()) as usize;
    let sum = u64::from_le_bytes(fields.take());

    let length = FIXED + bands(height) * 8;
    if length > got {
        // Heights are at most 65,535 in a JPEG: anything else is damage, and not a reason to take memory.
        if height > 1 << 16 {
            return Err(Unusable::Damaged("its header does not match its checksum"));
        }
        head.resize(length, 0);
        file.read_exact_at(&mut head[got..], got as u64)
            .map_err(short)?;
    }
    let head = &mut head[..length];
    head[FIXED - 8..FIXED].fill(0);
    if xxh3_64(head) != sum {
        return Err(Unusable::Damaged("its header does not match its checksum"));
    }
    if of != *identity {
        return Err(Unusable::Stale);
    }

    let region = choose(width, height);
    let first = region.top.min(height.saturating_sub(1)) / BAND;
    let last = (region.top + region.height).min(height).div_ceil(BAND);
    let (top, end) = (first * BAND, (last * BAND).min(height));
    image.resize(width, end - top);
    let row = width as usize * 3;
    file.read_exact_at(
        &mut image.pixels,
        length as u64 + u64::from(top) * row as u64,
    )
    .map_err(short)?;
    let (sums, _) = head[FIXED..].as_chunks::<8>();
    let rows = image.pixels.chunks((row * BAND as usize).max(1));
    for (sum, band) in sums[first as usize..].iter().zip(rows) {
        if xxh3_64(band) != u64::from_le_bytes(*sum) {
            return Err(Unusable::Damaged("its pixels do not match their checksum"));
        }
    }
    Ok(Found {
        width,
        height,
        top,
        warning: match kind {
            1 => Some(Warning::ExtraBytes(count)),
            2 => Some(Warning::TrailingBytes(count)),
            _ => None,
        },
    })
}

fn short(error: io::Error) -> Unusable {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Unusable::Damaged("it ends early"),
        _ => Unusable::Io(error),
    }
}

/// The fixed fields, one after another.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk::<N>().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *field
    }
}
