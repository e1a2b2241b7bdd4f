//! A walk over a JPEG's markers (ITU-T T.81, annex B) that decodes nothing: header, scans, end, and bytes too many.
//!
//! Within entropy-coded data every 0xFF is followed by 0x00 or a restart marker, so any other marker ends a scan, and an
//! end marker found by this walk is a real one, not the one of an embedded thumbnail.

use super::{DecodeError, Header, MAX_PIXELS, Warning};
use crate::content::sniff;
use std::ops::Range;

/// What the walk found in a whole file.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) header: Header,
    pub(super) frame: Frame,
    /// Segments before the first scan: the marker's code, and where the content lies.
    pub(super) segments: Vec<(u8, Range<usize>)>,
    /// The first scan: where its header and its data lie.
    pub(super) scan: Option<(Range<usize>, Range<usize>)>,
    /// Offset of the end marker.
    pub(super) end: usize,
    /// Scans before it.
    pub(super) scans: usize,
    /// Bytes that belong to no segment, between segments.
    pub(super) extra: Vec<Range<usize>>,
}

impl Survey {
    pub(super) fn warning(&self, bytes: usize) -> Option<Warning> {
        let extra: usize = self.extra.iter().map(ExactSizeIterator::len).sum();
        if extra > 0 {
            return Some(Warning::ExtraBytes(extra));
        }
        match bytes - self.end - 2 {
            0 => None,
            trailing => Some(Warning::TrailingBytes(trailing)),
        }
    }
}

/// The frame header; the bytes may be the beginning of a file.
pub(super) fn header(bytes: &[u8]) -> Result<Header, DecodeError> {
    let mut walk = Walk::new(bytes)?;
    loop {
        if let Step::Frame(header) = walk.step()? {
            return Ok(header);
        }
    }
}

/// Walks a whole file and checks that it has all its scans and an end.
///
/// # Errors
/// [`DecodeError`] for what is not a JPEG, too large, unsupported or ends early.
pub(crate) fn survey(bytes: &[u8]) -> Result<Survey, DecodeError> {
    let mut walk = Walk::new(bytes)?;
    let (mut segments, mut first) = (Vec::with_capacity(16), None);
    loop {
        match walk.step()? {
            Step::End => break,
            Step::Segment(code, content) if first.is_none() => {
                segments.push((code, walk.at - content.len()..walk.at));
            }
            Step::Scan { header, data } if first.is_none() => {
                let start = walk.at - data.len();
                first = Some((start - header.len()..start, start..walk.at));
            }
            _ => {}
        }
    }
    let Some(frame) = walk.frame.take() else {
        return Err(walk.truncated("the frame header"));
    };
    if !frame.is_complete() {
        return Err(walk.truncated("some of its scans"));
    }
    Ok(Survey {
        header: frame.header,
        frame,
        segments,
        scan: first,
        end: walk.at - 2,
        scans: walk.scans,
        extra: walk.extra,
    })
}

/// What the walk came over.
pub(super) enum Step<'a> {
    Frame(Header),
    /// A scan's header and its data, restart markers included.
    Scan {
        header: &'a [u8],
        data: &'a [u8],
    },
    /// Any other segment: the marker's code and the content.
    Segment(u8, &'a [u8]),
    End,
    Other,
}

pub(super) struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    frame: Option<Frame>,
    scans: usize,
    extra: Vec<Range<usize>>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if !bytes.starts_with(b"\xff\xd8") {
            let content = sniff(bytes).map_or_else(|| quote(bytes), str::to_owned);
            return Err(DecodeError::NotJpeg { content });
        }
        Ok(Self {
            bytes,
            at: 2,
            frame: None,
            scans: 0,
            extra: Vec::new(),
        })
    }

    fn truncated(&self, missing: &'static str) -> DecodeError {
        DecodeError::Truncated {
            bytes: self.bytes.len(),
            missing,
        }
    }

    /// Goes to the next marker and over its segment, and over the data of a scan.
    pub(super) fn step(&mut self) -> Result<Step<'a>, DecodeError> {
        match self.marker()? {
            0xd9 => Ok(Step::End),
            0xd8 => Err(DecodeError::Damaged("a second start marker".to_owned())),
            0x01 | 0xd0..=0xd7 => Ok(Step::Other),
            0xda => {
                let segment = self.segment()?;
                let frame = self
                    .frame
                    .as_mut()
                    .ok_or_else(|| DecodeError::Damaged("a scan before the frame".to_owned()))?;
                frame.scan(segment);
                self.scans += 1;
                let start = self.at;
                self.skip_scan_data()?;
                Ok(Step::Scan {
                    header: segment,
                    data: &self.bytes[start..self.at],
                })
            }
            code @ (0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                let segment = self.segment()?;
                if self.frame.is_some() {
                    return Err(DecodeError::Damaged("a second frame header".to_owned()));
                }
                let frame = Frame::read(code, segment)?;
                let header = frame.header;
                self.frame = Some(frame);
                Ok(Step::Frame(header))
            }
            code => Ok(Step::Segment(code, self.segment()?)),
        }
    }

    pub(super) fn frame(&self) -> Option<&Frame> {
        self.frame.as_ref()
    }

    /// The next marker's code. As libjpeg does, bytes that belong to nothing are passed over; 0xFF may be repeated.
    fn marker(&mut self) -> Result<u8, DecodeError> {
        let start = self.at;
        let mut at = self.at;
        loop {
            let Some(ff) = self
                .bytes
                .get(at..)
                .and_then(|rest| memchr::memchr(0xff, rest))
            else {
                return Err(self.truncated(if self.scans == 0 {
                    "the picture data"
                } else {
                    "the end marker"
                }));
            };
            let mut code_at = at + ff + 1;
            while self.bytes.get(code_at) == Some(&0xff) {
                code_at += 1;
            }
            match self.bytes.get(code_at) {
                Some(0) => at = code_at + 1,
                Some(&code) => {
                    if at + ff > start {
                        self.extra.push(start..at + ff);
                    }
                    self.at = code_at + 1;
                    return Ok(code);
                }
                None => at = code_at,
            }
        }
    }

    /// The content of the segment at hand.
    fn segment(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = match self.bytes.get(self.at..self.at + 2) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => return Err(self.truncated("a segment's length")),
        };
        if length < 2 {
            return Err(DecodeError::Damaged(format!(
                "a segment of length {length}"
            )));
        }
        let content = self
            .bytes
            .get(self.at + 2..self.at + length)
            .ok_or_else(|| self.truncated("a segment's rest"))?;
        self.at += length;
        Ok(content)
    }

    /// Stops at the marker that ends a scan.
    fn skip_scan_data(&mut self) -> Result<(), DecodeError> {
        loop {
            let rest = self.bytes.get(self.at..).unwrap_or_default();
            let Some(ff) = memchr::memchr(0xff, rest) else {
                return Err(self.truncated("the end marker"));
            };
            self.at += ff;
            match self.bytes.get(self.at + 1) {
                Some(0x00 | 0xd0..=0xd7) => self.at += 2,
                Some(0xff) => self.at += 1,
                Some(_) => return Ok(()),
                None => return Err(self.truncated("the end marker")),
            }
        }
    }
}

/// A frame, and how far its coefficients have come: the bit position of each (Al), -1 before its first scan.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    pub(super) header: Header,
    ids: [u8; 4],
    /// Places of the quantisation tables.
    quantisers: [u8; 4],
    /// Horizontal and vertical sampling factors, 1 to 4.
    sampling: [(usize, usize); 4],
    precision: [[i8; 64]; 4],
}

impl Frame {
    fn read(code: u8, segment: &[u8]) -> Result<Self, DecodeError> {
        let unsupported = match code {
            0xc3 | 0xc5..=0xc7 => Some("lossless"),
            0xc9..=0xcf => Some("arithmetic-coded"),
            _ => None,
        };
        if let Some(kind) = unsupported {
            return Err(DecodeError::Unsupported(kind));
        }
        let &[bits, h1, h0, w1, w0, components, ref rest @ ..] = segment else {
            return Err(DecodeError::Damaged(
                "the frame header is too short".to_owned(),
            ));
        };
        let header = Header {
            width: u16::from_be_bytes([w1, w0]).into(),
            height: u16::from_be_bytes([h1, h0]).into(),
            components,
            progressive: code == 0xc2,
        };
        if bits != 8 {
            return Err(DecodeError::Unsupported("a 12-bit"));
        }
        if header.width == 0 || header.height == 0 {
            return Err(DecodeError::Damaged(format!(
                "a size of {} x {}",
                header.width, header.height
            )));
        }
        if u64::from(header.width) * u64::from(header.height) > MAX_PIXELS {
            return Err(DecodeError::TooLarge {
                width: header.width,
                height: header.height,
            });
        }
        if !matches!(components, 1 | 3 | 4) {
            return Err(DecodeError::Damaged(format!("{components} components")));
        }
        let mut ids = [0; 4];
        let mut quantisers = [0; 4];
        let mut sampling = [(1, 1); 4];
        let listed = rest.as_chunks::<3>().0.iter().take(components.into());
        for (((id, quantiser), factors), &[own_id, own_factors, own_quantiser]) in ids
            .iter_mut()
            .zip(&mut quantisers)
            .zip(&mut sampling)
            .zip(listed)
        {
            *id = own_id;
            *quantiser = own_quantiser;
            let factor = |bits: u8| usize::from(bits).clamp(1, 4);
            *factors = (factor(own_factors >> 4), factor(own_factors & 15));
        }
        Ok(Self {
            header,
            ids,
            quantisers,
            sampling,
            precision: [[-1; 64]; 4],
        })
    }

    fn scan(&mut self, segment: &[u8]) {
        let Some((&count, rest)) = segment.split_first() else {
            return;
        };
        let parameters = rest.get(2 * usize::from(count)..).unwrap_or_default();
        let (first, last, low_bit) = match parameters {
            [first, last, bits, ..] if self.header.progressive => {
                (*first, (*last).min(63), (bits & 15) as i8)
            }
            _ => (0, 63, 0),
        };
        for selector in rest.chunks_exact(2).take(count.into()).map(|pair| pair[0]) {
            let component = self.component(selector);
            if let Some(precision) = component.and_then(|index| self.precision.get_mut(index)) {
                (first..=last).for_each(|k| precision[usize::from(k)] = low_bit);
            }
        }
    }

    /// Index of the component that a scan selects.
    pub(super) fn component(&self, selector: u8) -> Option<usize> {
        self.ids
            .iter()
            .take(self.header.components.into())
            .position(|&id| id == selector)
    }

    pub(super) fn ids(&self) -> &[u8] {
        &self.ids[..self.header.components.into()]
    }

    /// Place of a component's quantisation table.
    pub(super) fn quantiser(&self, component: usize) -> usize {
        self.quantisers
            .get(component)
            .copied()
            .unwrap_or(u8::MAX)
            .into()
    }

    pub(super) fn sampling(&self) -> &[(usize, usize)] {
        &self.sampling[..self.header.components.into()]
    }

    /// Whether every coefficient came down to its last bit. A progressive file cut between scans looks fine otherwise.
    fn is_complete(&self) -> bool {
        self.precision
            .iter()
            .take(self.header.components.into())
            .flatten()
            .all(|&bit| bit == 0)
    }
}

/// The first bytes of something unknown, as text where they are.
fn quote(bytes: &[u8]) -> String {
    let head = &bytes[..bytes.len().min(16)];
    match std::str::from_utf8(head) {
        Ok(text) => format!("{text:?}…"),
        Err(_) => format!("bytes that begin with {head:02x?}"),
    }
}
