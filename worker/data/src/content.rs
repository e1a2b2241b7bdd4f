//! What a file holds, told from its first bytes: people need to hear "a web page", not "illegal start bytes".

/// Names the content when it is a well-known thing that is not what was asked for.
pub(crate) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 12] = [
        (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
        (b"GIF8", "a GIF picture"),
        (b"BM", "a BMP picture"),
        (b"II*\0", "a TIFF picture"),
        (b"MM\0*", "a TIFF picture"),
        (b"\x1f\x8b", "gzip data"),
        (b"PK\x03\x04", "a zip archive"),
        (
            b"version https://git-lfs.github.com/spec/",
            "a Git LFS pointer (run `git lfs pull`)",
        ),
        (b"%PDF", "a PDF document"),
        (b"\xff\xfe", "UTF-16 text"),
        (b"\xfe\xff", "UTF-16 text"),
        (b"\0\0\0\x0cJXL ", "a JPEG XL picture"),
    ];
    if bytes.is_empty() {
        return Some("nothing: the file has 0 bytes");
    }
    if let Some((_, name)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(name);
    }
    if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
        return Some("a WebP picture");
    }
    if let Some(brand) = bytes.get(4..12).filter(|b| b.starts_with(b"ftyp")) {
        return Some(match &brand[4..] {
            b"avif" | b"avis" => "an AVIF picture",
            b"heic" | b"heix" | b"mif1" => "a HEIC picture",
            _ => "a video",
        });
    }
    let text = bytes.trim_ascii_start();
    let starts = |word: &[u8]| {
        text.get(..word.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(word))
    };
    if starts(b"<!doctype") || starts(b"<html") {
        return Some("a web page (a download that went wrong)");
    }
    if starts(b"<?xml") || starts(b"<svg") {
        return Some("XML text");
    }
    None
}
