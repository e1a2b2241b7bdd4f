//! The check of a split's pictures at start-up: presence, header, end marker; deeper damage is found at decode.

use super::memory::{Memory, Stamp};
use super::{BadImage, OnBadImage, describe};
use crate::coco::{LISTED_PER_FILE, Split};
use crate::jpeg;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes read to find a header: nearly always enough, and one read.
const HEAD: usize = 16 << 10;
/// Samples a thread takes at a time.
const STRETCH: usize = 64;

/// How to check files.
#[derive(Clone, Copy, Debug, Default)]
pub struct CheckOptions<'a> {
    /// Whether a bad picture is an error.
    pub on_bad_image: OnBadImage,
    /// Threads to use; 0 counts as 1.
    pub threads: usize,
    /// File that remembers good pictures by path, size and time of change; made if absent.
    pub cache: Option<&'a Path>,
}

/// What a check of a split's files found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileReport {
    /// Files looked for.
    pub checked: u64,
    /// Of them, taken as good from the cache without being opened.
    pub cached: u64,
    /// Files that are not there, counted among the bad.
    pub missing: u64,
    /// Bad pictures by sample id, all of them.
    pub bad: Vec<BadImage>,
    /// Why the cache could not be written, which costs time at the next start and nothing else.
    pub cache_error: Option<String>,
}

/// Bad pictures of a split. Displays the first ones, how many there are, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadFiles {
    /// Name of the split.
    pub split: String,
    /// The annotation file that lists the pictures.
    pub annotation_file: PathBuf,
    /// Why all of them are missing, if they are and it can be told.
    pub hint: Option<String>,
    /// What was found.
    pub report: FileReport,
}

impl std::error::Error for BadFiles {}

impl fmt::Display for BadFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FileReport {
            checked,
            missing,
            bad,
            ..
        } = &self.report;
        let file = self.annotation_file.display();
        let all_missing = missing == checked;
        if all_missing {
            write!(
                f,
                "{missing} of {checked} {} pictures of {file} are missing",
                self.split
            )?;
        } else {
            let count = bad.len();
            write!(
                f,
                "{count} of {checked} {} pictures of {file} cannot be used ({missing} missing)",
                self.split
            )?;
        }
        let listed = if all_missing { 1 } else { LISTED_PER_FILE };
        for image in bad.iter().take(listed) {
            write!(f, "\n  {image}")?;
        }
        if bad.len() > listed {
            write!(f, "\n  and {} more", bad.len() - listed)?;
        }
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => write!(
                f,
                "\n  fetch them again, or leave them out with data.on_bad_image=skip"
            ),
        }
    }
}

/// Checks presence, header and end marker of every picture of a split, in parallel.
///
/// # Errors
/// [`BadFiles`] when pictures are bad and `on_bad_image` is [`OnBadImage::Error`], and when all of them are missing.
pub fn check_files(split: &Split, options: &CheckOptions<'_>) -> Result<FileReport, Box<BadFiles>> {
    let mut memory = options.cache.map(Memory::load).unwrap_or_default();
    let next = AtomicUsize::new(0);
    let stretches = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..options.threads.max(1))
            .map(|_| scope.spawn(|| check_stretches(split, &memory, &next)))
            .collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Vec<Findings>>()
    });

    let mut report = FileReport {
        checked: split.samples.len() as u64,
        ..FileReport::default()
    };
    let mut news = false;
    for findings in stretches {
        report.cached += findings.cached;
        report.missing += findings.missing;
        report.bad.extend(findings.bad);
        news |= !findings.good.is_empty();
        findings
            .good
            .iter()
            .for_each(|(path, stamp)| memory.add(path, *stamp));
    }
    report.bad.sort_unstable_by_key(|image| image.sample);
    if let Some(cache) = options.cache.filter(|_| news) {
        report.cache_error = memory
            .save(cache)
            .err()
            .map(|error| format!("{}: {error}", cache.display()));
    }
    let all_missing = report.missing == report.checked && report.checked > 0;
    if report.bad.is_empty() || (options.on_bad_image == OnBadImage::Skip && !all_missing) {
        return Ok(report);
    }
    Err(Box::new(BadFiles {
        split: split.name.clone(),
        annotation_file: split.annotation_file.clone(),
        hint: if all_missing { hint(split) } else { None },
        report,
    }))
}

#[derive(Default)]
struct Findings {
    cached: u64,
    missing: u64,
    bad: Vec<BadImage>,
    good: Vec<(PathBuf, Stamp)>,
}

fn check_stretches(split: &Split, memory: &Memory, next: &AtomicUsize) -> Findings {
    let mut findings = Findings::default();
    loop {
        let start = next.fetch_add(STRETCH, Ordering::Relaxed);
        let samples = split.samples.iter().enumerate().skip(start).take(STRETCH);
        if samples.len() == 0 {
            return findings;
        }
        for (index, sample) in samples {
            let path = split.image_dir.join(&sample.file_name);
            let reason = match check_file(&path, memory) {
                Ok(Good::Known) => {
                    findings.cached += 1;
                    continue;
                }
                Ok(Good::Seen(stamp)) => {
                    findings.good.extend(stamp.map(|stamp| (path, stamp)));
                    continue;
                }
                Err(Bad::Io(error)) => {
                    findings.missing += u64::from(error.kind() == io::ErrorKind::NotFound);
                    describe(&error)
                }
                Err(Bad::Content(error)) => error.to_string(),
            };
            findings.bad.push(BadImage {
                sample: index as u32,
                image_id: sample.image_id,
                path,
                reason,
            });
        }
    }
}

enum Good {
    Known,
    Seen(Option<Stamp>),
}

enum Bad {
    Io(io::Error),
    Content(jpeg::DecodeError),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<jpeg::DecodeError> for Bad {
    fn from(error: jpeg::DecodeError) -> Self {
        Self::Content(error)
    }
}

fn check_file(path: &Path, memory: &Memory) -> Result<Good, Bad> {
    let metadata = std::fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(Bad::Io(io::Error::other("it is not a file")));
    }
    let stamp = Stamp::of(&metadata);
    if stamp.is_some_and(|stamp| memory.knows(path, stamp)) {
        return Ok(Good::Known);
    }
    let mut file = File::open(path)?;
    let mut bytes = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut bytes)?;
    let whole_file_read = bytes.len() < HEAD;
    let short_cut =
        !whole_file_read && jpeg::probe(&bytes).is_ok() && ends_with_end_marker(&mut file)?;
    if !short_cut {
        if !whole_file_read {
            // A header behind a large EXIF block, or bytes behind the end: walk the whole file.
            file.seek(SeekFrom::Start(HEAD as u64))?;
            file.read_to_end(&mut bytes)?;
        }
        jpeg::survey(&bytes)?;
    }
    Ok(Good::Seen(stamp))
}

fn ends_with_end_marker(file: &mut File) -> io::Result<bool> {
    let mut end = [0; 2];
    file.seek(SeekFrom::End(-2))?;
    file.read_exact(&mut end)?;
    Ok(end == [0xff, 0xd9])
}

/// Why every picture is missing: no folder, or COCO's other naming.
fn hint(split: &Split) -> Option<String> {
    let dir = split.image_dir.display();
    let Ok(entries) = std::fs::read_dir(&split.image_dir) else {
        return Some(format!(
            "there is no folder {dir}: set data.{}_images",
            split.name
        ));
    };
    let listed = split.samples.first()?.file_name.as_str();
    let there = entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        is_jpeg_name(&name).then_some(name)
    });
    let Some(there) = there else {
        return Some(format!(
            "the folder {dir} holds no .jpg file: set data.{}_images",
            split.name
        ));
    };
    let year = |name: &str| {
        if name.starts_with("COCO_") {
            "2014"
        } else {
            "2017"
        }
    };
    Some(if year(listed) == year(&there) {
        format!(
            "the folder {dir} holds other names, such as {there}: set data.{}_images",
            split.name
        )
    } else {
        format!(
            "the annotations list names of {} and the pictures in {dir} carry names of {} ({there}): use annotations and \
             pictures of the same year",
            year(listed),
            year(&there)
        )
    })
}

fn is_jpeg_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name.ends_with(".jpg") || name.ends_with(".jpeg")
}
