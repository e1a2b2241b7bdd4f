//! The JPEGs that nearly all pictures are (sequential, one scan, gray or YCbCr with the usual samplings), decoded only
//! where it is needed: every code is read, for only so is damage found, but samples and colours are computed in the rows
//! and columns of the wanted region alone.
//!
//! ```text
//! scan data --unstuff--> bits --huffman--> block --idct--> planes of a few columns and rows --colour--> RGB of the region
//! ```
//!
//! Pixels are those of libjpeg-turbo, bit for bit. Whatever is unusual is not read here but by the general decoder.

mod colour;
mod headers;
mod huffman;
mod idct;
mod stuffing;
mod tables;

use super::Region;
use super::survey::Survey;
use fearless_simd::{Level, Simd};
use headers::Headers;
use huffman::{Bits, NoCode};
use std::ops::Range;
use stuffing::unstuff;
use tables::Table;

/// Rows of MCUs whose samples are held: the one at hand, and the one above for interpolation across their border.
const HELD_ROWS: usize = 2;

/// Memory of one thread, used again for every picture.
#[derive(Default)]
pub(super) struct Scratch {
    tables: headers::Tables,
    /// Scan data without stuffing, each segment with its padding.
    data: Vec<u8>,
    segments: Vec<Range<usize>>,
    planes: [Vec<u8>; 3],
    rows: Rows,
}

/// Chroma of one row at full width, and what is needed on the way.
#[derive(Default)]
struct Rows {
    chroma: [Vec<u8>; 2],
    sums: Vec<u16>,
}

/// A component in the order of its blocks.
struct Component<'a> {
    /// Blocks across and down in an MCU.
    blocks: (usize, usize),
    /// Samples of the whole picture, without padding to blocks.
    size: (usize, usize),
    tables: (&'a Table, &'a Table),
    quantisers: [i16; 64],
    /// Samples in a row of its plane.
    stride: usize,
}

/// What to decode.
struct Job<'a> {
    components: &'a [Component<'a>],
    /// MCUs across and down.
    mcus: (usize, usize),
    /// Luma samples of an MCU across and down.
    mcu: (usize, usize),
    height: usize,
    /// MCUs between restart markers, 0 for none.
    restart: usize,
    data: &'a [u8],
    segments: &'a [Range<usize>],
    /// MCUs of which samples are needed.
    columns: Range<usize>,
    rows: Range<usize>,
    region: Region,
}

/// Decodes the region to `[height, width, 3]`; `None` for a picture of an unusual kind.
///
/// # Errors
/// What is wrong with the scan's data.
pub(super) fn decode(
    bytes: &[u8],
    survey: &Survey,
    region: Region,
    scratch: &mut Scratch,
    out: &mut [u8],
) -> Option<Result<(), &'static str>> {
    let headers = Headers::read(bytes, survey, &mut scratch.tables)?;
    unstuff(
        &bytes[headers.data.clone()],
        &mut scratch.data,
        &mut scratch.segments,
    );
    let (width, height) = (survey.header.width as usize, survey.header.height as usize);
    let (across, down) = headers.most;
    let mcu = (8 * across, 8 * down);
    let mcus = (width.div_ceil(mcu.0), height.div_ceil(mcu.1));
    // Interpolated chroma takes in a neighbour on each side.
    let needed = |start: u32, length: u32, factor: usize, most: usize| {
        let margin = if factor > 1 { factor } else { 0 };
        let (start, end) = (start as usize, (start + length) as usize);
        let size = 8 * factor;
        start.saturating_sub(margin) / size..(end + margin).div_ceil(size).min(most)
    };
    let columns = needed(region.left, region.width, across, mcus.0);
    let rows = needed(region.top, region.height, down, mcus.1);
    let mut components = Vec::with_capacity(3);
    for (read, plane) in headers.components.iter().zip(&mut scratch.planes) {
        let stride = columns.len() * 8 * read.blocks.0;
        plane.resize(stride * HELD_ROWS * 8 * read.blocks.1, 0);
        components.push(Component {
            blocks: read.blocks,
            size: (
                (width * read.blocks.0).div_ceil(across),
                (height * read.blocks.1).div_ceil(down),
            ),
            tables: (
                scratch.tables.differences(read.dc)?,
                scratch.tables.coefficients(read.ac)?,
            ),
            quantisers: read.quantisers,
            stride,
        });
    }
    let job = Job {
        components: &components,
        mcus,
        mcu,
        height,
        restart: headers.restart,
        data: &scratch.data,
        segments: &scratch.segments,
        columns,
        rows,
        region,
    };
    let (planes, rows) = (&mut scratch.planes, &mut scratch.rows);
    let result = run_widest(&job, planes, rows, out);
    Some(result.map_err(|NoCode| "the picture data hold bits that are no code, or too few"))
}

/// How far the scan has been read.
struct Reader<'a> {
    bits: Bits<'a>,
    previous: [i32; 3],
    /// MCUs to the next restart marker.
    left: usize,
    segments: std::slice::Iter<'a, Range<usize>>,
}

impl<'a> Reader<'a> {
    fn new(job: &Job<'a>) -> Self {
        let mut segments = job.segments.iter();
        let first = segments.next().cloned().unwrap_or_default();
        Self {
            bits: Bits::new(&job.data[first]),
            previous: [0; 3],
            left: if job.restart > 0 {
                job.restart
            } else {
                usize::MAX
            },
            segments,
        }
    }

    #[cold]
    fn restart(&mut self, job: &Job<'a>) -> Result<(), NoCode> {
        let next = self.segments.next().ok_or(NoCode)?;
        if self.bits.is_exhausted() {
            return Err(NoCode);
        }
        self.bits = Bits::new(&job.data[next.clone()]);
        self.previous = [0; 3];
        self.left = job.restart;
        Ok(())
    }

    #[inline(always)]
    fn begin(&mut self, job: &Job<'a>) -> Result<(), NoCode> {
        if self.left == 0 {
            self.restart(job)?;
        }
        self.left -= 1;
        Ok(())
    }
}

/// With AVX2 where there is any: wider vectors gain nothing, and each kind is compiled once more.
fn run_widest(
    job: &Job<'_>,
    planes: &mut [Vec<u8>; 3],
    rows: &mut Rows,
    out: &mut [u8],
) -> Result<(), NoCode> {
    let level = Level::new();
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(simd) = level.as_avx2() {
            return simd.vectorize(
                #[inline(always)]
                || run(simd, job, planes, rows, out),
            );
        }
        let simd = level.as_sse2().expect("every x86-64 machine has SSE2");
        simd.vectorize(
            #[inline(always)]
            || run(simd, job, planes, rows, out),
        )
    }
    #[cfg(not(target_arch = "x86_64"))]
    fearless_simd::dispatch!(level, simd => run(simd, job, planes, rows, out))
}

#[inline(always)]
fn run<S: Simd>(
    simd: S,
    job: &Job<'_>,
    planes: &mut [Vec<u8>; 3],
    rows: &mut Rows,
    out: &mut [u8],
) -> Result<(), NoCode> {
    let mut reader = Reader::new(job);
    let bottom = (job.region.top + job.region.height) as usize;
    let mut done = job.region.top as usize;
    for row in 0..job.mcus.1 {
        if job.rows.contains(&row) {
            skip(&mut reader, job, job.columns.start)?;
            simd.vectorize(
                #[inline(always)]
                || keep(simd, &mut reader, job, row % HELD_ROWS, planes),
            )?;
            skip(&mut reader, job, job.mcus.0 - job.columns.end)?;
            // The last row of interpolated chroma waits for the one below.
            let whole = match (row + 1) * job.mcu.1 {
                end if end >= job.height => job.height,
                end => end - (job.mcu.1 / 8 - 1),
            };
            let end = whole.min(bottom);
            if end > done {
                simd.vectorize(
                    #[inline(always)]
                    || colours(simd, job, done..end, planes, rows, out),
                );
                done = end;
            }
        } else {
            skip(&mut reader, job, job.mcus.0)?;
        }
        if reader.bits.is_exhausted() {
            return Err(NoCode);
        }
    }
    Ok(())
}

/// Reads MCUs and keeps nothing.
#[inline(always)]
fn skip<'a>(reader: &mut Reader<'a>, job: &Job<'a>, count: usize) -> Result<(), NoCode> {
    let mut block = [0; 64];
    for _ in 0..count {
        reader.begin(job)?;
        for (component, previous) in job.components.iter().zip(&mut reader.previous) {
            for _ in 0..component.blocks.0 * component.blocks.1 {
                reader
                    .bits
                    .block::<false>(component.tables, previous, &mut block)?;
            }
        }
    }
    Ok(())
}

/// Reads the wanted MCUs of a row and transforms them into the planes' held row `row`.
#[inline(always)]
fn keep<'a, S: Simd>(
    simd: S,
    reader: &mut Reader<'a>,
    job: &Job<'a>,
    row: usize,
    planes: &mut [Vec<u8>; 3],
) -> Result<(), NoCode> {
    for column in 0..job.columns.len() {
        reader.begin(job)?;
        let parts = job.components.iter().zip(planes.iter_mut());
        for ((component, plane), previous) in parts.zip(&mut reader.previous) {
            let (across, down) = component.blocks;
            for index in 0..across * down {
                let (x, y) = match across {
                    1 => (0, index),
                    _ => (index % 2, index / 2),
                };
                let mut block = [0; 64];
                let end = reader
                    .bits
                    .block::<true>(component.tables, previous, &mut block)?;
                let factors = &component.quantisers;
                let at = ((row * down + y) * component.stride + column * across + x) * 8;
                let samples = &mut plane[at..];
                if end == 1 {
                    idct::flat(block[0].wrapping_mul(factors[0]), samples, component.stride);
                } else {
                    idct::idct(simd, &block, factors, samples, component.stride);
                }
            }
        }
    }
    Ok(())
}

/// Converts rows of the picture whose samples are all there.
#[inline(always)]
fn colours<S: Simd>(
    simd: S,
    job: &Job<'_>,
    lines: Range<usize>,
    planes: &[Vec<u8>; 3],
    rows: &mut Rows,
    out: &mut [u8],
) {
    let (left, width) = (job.region.left as usize, job.region.width as usize);
    let top = job.region.top as usize;
    let inner = left - job.columns.start * job.mcu.0;
    let inner = inner..inner + width;
    // A component's row at hand, without what pads it to whole blocks.
    let samples = |index: usize, line: usize| {
        let component = &job.components[index];
        let from = job.columns.start * 8 * component.blocks.0;
        let line = line.min(component.size.1 - 1);
        let height = 8 * component.blocks.1;
        let start = (line / height % HELD_ROWS * height + line % height) * component.stride;
        &planes[index][start..start + component.stride.min(component.size.0 - from)]
    };
    for line in lines {
        let start = (line - top) * width * 3;
        let out = &mut out[start..start + width * 3];
        let luma = &samples(0, line)[inner.clone()];
        if job.components.len() == 1 {
            colour::gray_row(luma, out);
            continue;
        }
        let (wide, tall) = (job.mcu.0 > 8, job.mcu.1 > 8);
        if !wide && !tall {
            let chroma = |index| &samples(index, line)[inner.clone()];
            colour::rgb_row(simd, luma, chroma(1), chroma(2), out);
            continue;
        }
        let full = job.columns.len() * job.mcu.0;
        rows.sums.resize(full, 0);
        for (index, chroma) in (1..).zip(&mut rows.chroma) {
            chroma.resize(full, 0);
            let component_width = job.components[index].size.0;
            let near = samples(index, if tall { line / 2 } else { line });
            let above = line % 2 == 0;
            let far = match (tall, above) {
                (false, _) => near,
                (true, true) => samples(index, (line / 2).saturating_sub(1)),
                (true, false) => samples(index, line / 2 + 1),
            };
            match (wide, tall) {
                (true, true) => {
                    colour::wider_and_taller(near, far, component_width, &mut rows.sums, chroma);
                }
                (true, false) => colour::wider(near, component_width, chroma),
                _ => colour::taller(near, far, above, chroma),
            }
        }
        let [cb, cr] = &rows.chroma;
        colour::rgb_row(simd, luma, &cb[inner.clone()], &cr[inner.clone()], out);
    }
}
