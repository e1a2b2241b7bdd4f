//! The bytes of a scan as the bits' reader wants them: without stuffing, a padded segment for each restart interval.

use super::huffman::PADDING;
use std::ops::Range;

/// Copies a scan's data without the zeros behind 0xFF, cut at the restart markers.
pub(super) fn unstuff(data: &[u8], out: &mut Vec<u8>, segments: &mut Vec<Range<usize>>) {
    out.clear();
    segments.clear();
    out.reserve(data.len() + PADDING);
    let mut start = 0;
    let mut rest = data;
    while let Some(at) = memchr::memchr(0xff, rest) {
        match rest.get(at + 1) {
            Some(0) => out.extend_from_slice(&rest[..=at]),
            Some(0xd0..=0xd7) => {
                out.extend_from_slice(&rest[..at]);
                out.extend_from_slice(&[0xff; PADDING]);
                segments.push(start..out.len());
                start = out.len();
            }
            // Fill bytes before a marker.
            _ => {
                out.extend_from_slice(&rest[..at]);
                rest = &rest[at + 1..];
                continue;
            }
        }
        rest = &rest[at + 2..];
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0xff; PADDING]);
    segments.push(start..out.len());
}
