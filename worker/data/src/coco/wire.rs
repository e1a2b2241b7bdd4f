//! The index as bytes: what the coordinator parsed once, small enough to send to every worker.
//!
//! Layout, version 1: magic `HGIX`, version byte, then LEB128 numbers and length-prefixed UTF-8:
//! name, annotation file, image folder, classes, unlabelled, dropped, warnings (count; text, count each), samples (count;
//! per sample image id as zigzag difference to the one before, file name, label count, labels as gaps).

use super::build::MAX_CLASSES;
use super::{Sample, Split, Warning};
use std::path::PathBuf;

const MAGIC: &[u8; 4] = b"HGIX";
const VERSION: u8 = 1;
/// A sample takes at least an id, a name's length, and a label count.
const SMALLEST_SAMPLE: usize = 3;

/// Why bytes are not a [`Split`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Not an index at all.
    #[error("data set index: the bytes do not begin with HGIX")]
    Magic,
    /// Written by another version of this program.
    #[error(
        "data set index: version {found} where {VERSION} is read: run the same version everywhere"
    )]
    Version {
        /// The version byte.
        found: u8,
    },
    /// Ends early, or has bytes left over.
    #[error("data set index: {what} ends early or is too long at byte {at} of {len}")]
    Length {
        /// The field.
        what: &'static str,
        /// Offset.
        at: usize,
        /// Length of the bytes.
        len: usize,
    },
    /// A value that no index holds.
    #[error("data set index: {what} at byte {at} is not valid")]
    Value {
        /// The field.
        what: &'static str,
        /// Offset.
        at: usize,
    },
}

impl Split {
    /// The index in its wire form, about 40 bytes a sample; see [`Split::decode`].
    ///
    /// Paths that are not UTF-8 are sent with the replacement character: they only serve messages and local folders.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + 48 * self.samples.len());
        out.extend_from_slice(MAGIC);
        out.push(VERSION);
        put_text(&mut out, &self.name);
        put_text(&mut out, &self.annotation_file.to_string_lossy());
        put_text(&mut out, &self.image_dir.to_string_lossy());
        put(&mut out, self.num_classes as u64);
        put(&mut out, self.unlabelled);
        put(&mut out, self.dropped);
        put(&mut out, self.warnings.len() as u64);
        for warning in &self.warnings {
            put_text(&mut out, &warning.text);
            put(&mut out, warning.count);
        }
        put(&mut out, self.samples.len() as u64);
        let mut previous_id = 0_u64;
        for sample in &self.samples {
            let difference = sample.image_id.wrapping_sub(previous_id) as i64;
            put(&mut out, ((difference << 1) ^ (difference >> 63)) as u64);
            previous_id = sample.image_id;
            put_text(&mut out, &sample.file_name);
            put(&mut out, sample.labels.len() as u64);
            let mut next = 0_u64;
            for &label in &sample.labels {
                put(&mut out, u64::from(label).saturating_sub(next));
                next = u64::from(label) + 1;
            }
        }
        out
    }

    /// The same for the same pictures and labels in the same order, wherever they lie: what tells data sets apart.
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let placeless = Self {
            annotation_file: std::path::PathBuf::new(),
            image_dir: std::path::PathBuf::new(),
            warnings: Vec::new(),
            ..self.clone()
        };
        placeless.encode()
    }

    /// Reads what [`Split::encode`] wrote. Hostile bytes neither panic nor allocate more than a small multiple of
    /// their length.
    ///
    /// # Errors
    /// [`IndexError`] when the bytes are of another version, end early or contradict themselves.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let mut reader = Reader { bytes, at: 0 };
        if reader.take(MAGIC.len(), "magic").ok() != Some(MAGIC) {
            return Err(IndexError::Magic);
        }
        let found = reader.take(1, "version")?[0];
        if found != VERSION {
            return Err(IndexError::Version { found });
        }
        let name = reader.text("name")?;
        let annotation_file = PathBuf::from(reader.text("annotation file")?);
        let image_dir = PathBuf::from(reader.text("image folder")?);
        let num_classes = reader.number("number of classes")?;
        let num_classes = usize::try_from(num_classes)
            .ok()
            .filter(|&n| n <= MAX_CLASSES)
            .ok_or_else(|| reader.invalid("number of classes"))?;
        let unlabelled = reader.number("unlabelled")?;
        let dropped = reader.number("dropped")?;
        let mut warnings = Vec::new();
        for _ in 0..reader.count(2, "warnings")? {
            warnings.push(Warning {
                text: reader.text("warning")?,
                count: reader.number("warning count")?,
            });
        }
        let count = reader.count(SMALLEST_SAMPLE, "samples")?;
        if u32::try_from(count).is_err() {
            return Err(reader.invalid("number of samples"));
        }
        let mut samples = Vec::with_capacity(count);
        let mut previous_id = 0_u64;
        for _ in 0..count {
            let difference = reader.number("image id")?;
            let image_id =
                previous_id.wrapping_add((difference >> 1) ^ (difference & 1).wrapping_neg());
            previous_id = image_id;
            let file_name = reader.text("file name")?;
            let labels = reader.labels(num_classes)?;
            samples.push(Sample {
                image_id,
                file_name,
                labels,
            });
        }
        if reader.at != bytes.len() {
            return Err(reader.length("end"));
        }
        Ok(Self {
            name,
            annotation_file,
            image_dir,
            num_classes,
            samples,
            unlabelled,
            dropped,
            warnings,
        })
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn length(&self, what: &'static str) -> IndexError {
        IndexError::Length {
            what,
            at: self.at,
            len: self.bytes.len(),
        }
    }

    fn invalid(&self, what: &'static str) -> IndexError {
        IndexError::Value { what, at: self.at }
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], IndexError> {
        let end = self.at.checked_add(len);
        let bytes = end
            .and_then(|end| self.bytes.get(self.at..end))
            .ok_or_else(|| self.length(what))?;
        self.at += len;
        Ok(bytes)
    }

    fn number(&mut self, what: &'static str) -> Result<u64, IndexError> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1, what)?[0];
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part {
                return Err(self.invalid(what));
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.invalid(what))
    }

    /// A number of things that take at least `smallest` bytes each: never more than the bytes that are left can hold.
    fn count(&mut self, smallest: usize, what: &'static str) -> Result<usize, IndexError> {
        let count = self.number(what)?;
        let room = (self.bytes.len() - self.at) / smallest;
        usize::try_from(count)
            .ok()
            .filter(|&count| count <= room)
            .ok_or_else(|| self.length(what))
    }

    fn text(&mut self, what: &'static str) -> Result<String, IndexError> {
        let len = self.count(1, what)?;
        let bytes = self.take(len, what)?;
        std::str::from_utf8(bytes)
            .map(str::to_owned)
            .map_err(|_| self.invalid(what))
    }

    fn labels(&mut self, num_classes: usize) -> Result<Box<[u16]>, IndexError> {
        let count = self.count(1, "labels")?;
        let mut next = 0_u64;
        let mut labels = Vec::with_capacity(count);
        for _ in 0..count {
            let label = next
                .checked_add(self.number("label")?)
                .filter(|&label| label < num_classes as u64);
            let label = label
                .and_then(|label| u16::try_from(label).ok())
                .ok_or_else(|| self.invalid("label"))?;
            labels.push(label);
            next = u64::from(label) + 1;
        }
        Ok(labels.into_boxed_slice())
    }
}
