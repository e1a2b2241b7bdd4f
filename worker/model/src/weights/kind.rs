//! What a file is, by its first bytes.

use std::fmt;

use super::Foreign;

/// Bytes that [`sniff`] wants to see.
pub(super) const HEAD_BYTES: u64 = 512;

/// The formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A JSON header and raw bytes.
    Safetensors,
    /// `torch.save` since PyTorch 1.6: a zip archive with a pickle.
    TorchZip,
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::TorchZip => "torch.save (zip)",
        })
    }
}

/// What the first bytes say.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sniffed {
    Safetensors,
    Zip,
    Foreign(Foreign),
}

/// Looks at a file's first [`HEAD_BYTES`] (fewer where it is shorter) and its size.
pub(super) fn sniff(head: &[u8], size: u64) -> Sniffed {
    let opens_header = head.get(8) == Some(&b'{');
    let header = head.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    // First of all: a header of 640 bytes begins with 80 02, as a pickle does.
    if opens_header && header.is_some_and(|length| length <= size.saturating_sub(8)) {
        return Sniffed::Safetensors;
    }
    if head.starts_with(b"PK\x03\x04") || head.starts_with(b"PK\x05\x06") {
        return Sniffed::Zip;
    }
    let text = String::from_utf8_lossy(head)
        .trim_start_matches('\u{feff}')
        .trim_start()
        .to_ascii_lowercase();
    Sniffed::Foreign(if head.is_empty() {
        Foreign::Empty
    } else if text.starts_with("version https://git-lfs") {
        Foreign::LfsPointer
    } else if ["<!doctype", "<html", "<head", "<?xml"]
        .iter()
        .any(|tag| text.starts_with(tag))
    {
        Foreign::WebPage {
            start: start(&text),
        }
    } else if head.get(257..262) == Some(b"ustar") {
        Foreign::Tar
    } else if head.starts_with(&[0x1f, 0x8b]) {
        Foreign::Gzip
    } else if head.first() == Some(&0x80)
        && head.get(1).is_some_and(|version| (1..=5).contains(version))
    {
        Foreign::LegacyPickle
    } else if opens_header {
        return Sniffed::Safetensors;
    } else {
        Foreign::Unknown {
            start: start(&text),
            size,
        }
    })
}

/// The first characters, fit for a terminal.
fn start(text: &str) -> String {
    text.chars().take(16).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_safetensors_header_of_640_bytes_is_not_taken_for_a_pickle() {
        let mut head = 640u64.to_le_bytes().to_vec();
        head.extend(b"{\"a\":");
        assert_eq!(sniff(&head, 10_000), Sniffed::Safetensors);
        assert_eq!(
            sniff(&head[..8], 10_000),
            Sniffed::Foreign(Foreign::LegacyPickle)
        );
    }

    #[test]
    fn a_web_page_behind_a_byte_order_mark_and_blank_lines_is_one() {
        let page = sniff("\u{feff}\n\n <!DOCTYPE html><html>".as_bytes(), 27);
        assert!(
            matches!(page, Sniffed::Foreign(Foreign::WebPage { .. })),
            "{page:?}"
        );
    }
}
