//! Whether every scan has all its codes: reads entropy-coded data bit by bit (ITU-T T.81, F.2.2 and G.2) and computes
//! no pixel.
//!
//! The decoder fills with zeros where a scan ends too soon. Of one scan it says so when its end marker is withheld; of
//! several it does not, and those files are walked here. What is wrong in any other way is left to the decoder.

use super::DecodeError;
use super::survey::{Frame, Step, Walk};

/// The walk stops: of one thing it says so, of everything else the decoder will.
enum Stop {
    /// The data end before the codes do.
    Exhausted,
    /// A code, table or selector that makes no sense.
    Odd,
}

/// Checks a surveyed file of several scans.
///
/// # Errors
/// [`DecodeError::Truncated`] when a scan ends early.
pub(super) fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut walk = Walk::new(bytes)?;
    let mut tables = Tables::default();
    let mut restart = 0;
    let mut nonzero: [Vec<u64>; 4] = Default::default();
    loop {
        let result = match walk.step()? {
            Step::End => return Ok(()),
            Step::Segment(0xc4, content) => tables.read(content),
            Step::Segment(0xdd, &[high, low, ..]) => {
                restart = usize::from(u16::from_be_bytes([high, low]));
                Ok(())
            }
            Step::Scan { header, data } => {
                let frame = walk.frame();
                frame
                    .ok_or(Stop::Odd)
                    .and_then(|frame| Scan::new(header, frame, &tables, restart))
                    .and_then(|mut scan| scan.walk(data, &mut nonzero))
            }
            _ => Ok(()),
        };
        match result {
            Ok(()) => {}
            Err(Stop::Exhausted) => {
                return Err(DecodeError::Truncated {
                    bytes: bytes.len(),
                    missing: "a part of the picture data",
                });
            }
            Err(Stop::Odd) => return Ok(()),
        }
    }
}

/// The Huffman tables in force: four for DC, four for AC.
#[derive(Default)]
struct Tables([Option<Table>; 8]);

impl Tables {
    fn read(&mut self, mut content: &[u8]) -> Result<(), Stop> {
        while let Some((&place, rest)) = content.split_first() {
            let (lengths, rest) = rest.split_first_chunk::<16>().ok_or(Stop::Odd)?;
            let count = lengths.iter().map(|&n| usize::from(n)).sum();
            let (symbols, rest) = rest.split_at_checked(count).ok_or(Stop::Odd)?;
            let index = usize::from(place >> 4) * 4 + usize::from(place & 15);
            *self.0.get_mut(index).ok_or(Stop::Odd)? = Some(Table::new(lengths, symbols));
            content = rest;
        }
        Ok(())
    }

    fn get(&self, index: usize) -> Option<&Table> {
        self.0.get(index)?.as_ref()
    }
}

/// Codes of each length are consecutive numbers: the end of the range, and what to add for the symbol's place.
struct Table {
    ranges: [(u32, i32); 16],
    symbols: Vec<u8>,
}

impl Table {
    fn new(lengths: &[u8; 16], symbols: &[u8]) -> Self {
        let (mut code, mut place) = (0u32, 0i32);
        let ranges = lengths.map(|count| {
            let offset = place - code as i32;
            code += u32::from(count);
            place += i32::from(count);
            let end = code;
            code *= 2;
            (end, offset)
        });
        Self {
            ranges,
            symbols: symbols.to_vec(),
        }
    }

    fn decode(&self, bits: &mut Bits<'_>) -> Result<u8, Stop> {
        let mut code = 0;
        for (end, offset) in self.ranges {
            code = code * 2 + bits.take(1)?;
            if code < end {
                let symbol = usize::try_from(code as i32 + offset).ok();
                let symbol = symbol.and_then(|place| self.symbols.get(place));
                return symbol.copied().ok_or(Stop::Odd);
            }
        }
        Err(Stop::Odd)
    }
}

/// The bits of a scan, up to the next restart marker.
struct Bits<'a> {
    data: &'a [u8],
    held: u64,
    count: u32,
}

impl Bits<'_> {
    /// The next `count` bits, at most 16.
    fn take(&mut self, count: u32) -> Result<u32, Stop> {
        while self.count < count {
            let (byte, rest) = match *self.data {
                [0xff, 0x00, ref rest @ ..] => (0xff, rest),
                [] | [0xff, ..] => return Err(Stop::Exhausted),
                [byte, ref rest @ ..] => (byte, rest),
            };
            self.data = rest;
            self.held = self.held << 8 | u64::from(byte);
            self.count += 8;
        }
        self.count -= count;
        Ok((self.held >> self.count) as u32 & ((1 << count) - 1))
    }

    /// Goes behind the next restart marker.
    fn restart(&mut self) -> Result<(), Stop> {
        self.count = 0;
        loop {
            match *self.data {
                [0xff, 0xd0..=0xd7, ref rest @ ..] => {
                    self.data = rest;
                    return Ok(());
                }
                [_, ref rest @ ..] => self.data = rest,
                [] => return Err(Stop::Exhausted),
            }
        }
    }
}

/// A component's part in a scan.
struct Part<'a> {
    component: usize,
    /// Blocks across and down in one unit of the scan.
    unit: (usize, usize),
    /// Blocks in a row of the whole component, padding included.
    stride: usize,
    /// Blocks of the whole component, padding included.
    blocks: usize,
    dc: Option<&'a Table>,
    ac: Option<&'a Table>,
}

struct Scan<'a> {
    parts: Vec<Part<'a>>,
    /// Units across and down.
    units: (usize, usize),
    restart: usize,
    /// First and last coefficient.
    band: (u32, u32),
    progressive: bool,
    /// A later pass over coefficients that are known but for their last bits.
    refines: bool,
    /// Blocks still without a coefficient in the band (EOBRUN).
    empty: u32,
}

impl<'a> Scan<'a> {
    fn new(header: &[u8], frame: &Frame, tables: &'a Tables, restart: usize) -> Result<Self, Stop> {
        let (&count, rest) = header.split_first().ok_or(Stop::Odd)?;
        let (selectors, rest) = rest
            .split_at_checked(usize::from(count) * 2)
            .ok_or(Stop::Odd)?;
        let &[first, last, bits, ..] = rest else {
            return Err(Stop::Odd);
        };
        let progressive = frame.header.progressive;
        let (width, height) = (frame.header.width as usize, frame.header.height as usize);
        let sampling = frame.sampling();
        let most = |of: fn(&(usize, usize)) -> usize| sampling.iter().map(of).max().unwrap_or(1);
        let (most_across, most_down) = (most(|s| s.0), most(|s| s.1));
        let mcus = (
            width.div_ceil(8 * most_across),
            height.div_ceil(8 * most_down),
        );
        let mut units = mcus;
        let alone = count == 1;
        let mut parts = Vec::with_capacity(count.into());
        for &[selector, table] in selectors.as_chunks::<2>().0 {
            let component = frame.component(selector).ok_or(Stop::Odd)?;
            let (across, down) = sampling[component];
            if alone {
                // Without the padding to whole MCUs.
                units = (
                    (width * across).div_ceil(most_across).div_ceil(8),
                    (height * down).div_ceil(most_down).div_ceil(8),
                );
            }
            parts.push(Part {
                component,
                unit: if alone { (1, 1) } else { (across, down) },
                stride: mcus.0 * across,
                blocks: mcus.0 * across * mcus.1 * down,
                dc: tables.get(usize::from(table >> 4).min(3)),
                ac: tables.get(4 + usize::from(table & 15).min(3)),
            });
        }
        let band = if progressive {
            (u32::from(first), u32::from(last))
        } else {
            (0, 63)
        };
        if band.1 > 63 || band.0 > band.1 || (progressive && band.0 > 0 && !alone) {
            return Err(Stop::Odd);
        }
        Ok(Self {
            parts,
            units,
            restart,
            band,
            progressive,
            refines: bits >> 4 != 0,
            empty: 0,
        })
    }

    /// `nonzero` has a bit for each coefficient of each block of each component that earlier scans found.
    fn walk(&mut self, data: &[u8], nonzero: &mut [Vec<u64>; 4]) -> Result<(), Stop> {
        let mut bits = Bits {
            data,
            held: 0,
            count: 0,
        };
        let parts = std::mem::take(&mut self.parts);
        if self.progressive && self.band.0 > 0 {
            for part in &parts {
                nonzero[part.component].resize(part.blocks, 0);
            }
        }
        let (across, down) = self.units;
        for unit in 0..across * down {
            if unit > 0 && self.restart > 0 && unit % self.restart == 0 {
                bits.restart()?;
                self.empty = 0;
            }
            for part in &parts {
                for block in 0..part.unit.0 * part.unit.1 {
                    let x = unit % across * part.unit.0 + block % part.unit.0;
                    let y = unit / across * part.unit.1 + block / part.unit.0;
                    let mut none = 0;
                    let known = nonzero[part.component]
                        .get_mut(y * part.stride + x)
                        .unwrap_or(&mut none);
                    self.block(part, &mut bits, known)?;
                }
            }
        }
        Ok(())
    }

    fn block(&mut self, part: &Part<'_>, bits: &mut Bits<'_>, known: &mut u64) -> Result<(), Stop> {
        if !self.progressive {
            difference(part, bits)?;
            return self.coefficients(part, bits, 1, &mut 0);
        }
        match (self.band.0, self.refines) {
            (0, false) => difference(part, bits),
            (0, true) => bits.take(1).map(|_| ()),
            (first, false) => self.coefficients(part, bits, first, known),
            (first, true) => self.refinement(part, bits, first, known),
        }
    }

    /// A block's AC coefficients from `k` on.
    fn coefficients(
        &mut self,
        part: &Part<'_>,
        bits: &mut Bits<'_>,
        mut k: u32,
        known: &mut u64,
    ) -> Result<(), Stop> {
        if self.empty > 0 {
            self.empty -= 1;
            return Ok(());
        }
        let table = part.ac.ok_or(Stop::Odd)?;
        while k <= self.band.1 {
            let symbol = table.decode(bits)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            match (run, size) {
                (15, 0) => k += 16,
                (_, 0) => {
                    if self.progressive {
                        self.empty = (1 << run) - 1 + bits.take(run)?;
                    }
                    return Ok(());
                }
                _ => {
                    k += run;
                    *known |= 1_u64.checked_shl(k).ok_or(Stop::Odd)?;
                    bits.take(size)?;
                    k += 1;
                }
            }
        }
        Ok(())
    }

    /// One more bit for each known AC coefficient from `k` on, and those that appear only now.
    fn refinement(
        &mut self,
        part: &Part<'_>,
        bits: &mut Bits<'_>,
        mut k: u32,
        known: &mut u64,
    ) -> Result<(), Stop> {
        let table = part.ac.ok_or(Stop::Odd)?;
        let last = self.band.1;
        while self.empty == 0 && k <= last {
            let symbol = table.decode(bits)?;
            let (mut run, size) = (u32::from(symbol >> 4), symbol & 15);
            if size > 0 {
                bits.take(1)?;
            } else if run < 15 {
                self.empty = (1 << run) + bits.take(run)?;
                break;
            }
            while k <= last {
                if *known >> k & 1 == 1 {
                    bits.take(1)?;
                } else if run == 0 {
                    break;
                } else {
                    run -= 1;
                }
                k += 1;
            }
            if size > 0 && k <= last {
                *known |= 1 << k;
            }
            k += 1;
        }
        if self.empty > 0 {
            for _ in (k..=last).filter(|&k| *known >> k & 1 == 1) {
                bits.take(1)?;
            }
            self.empty -= 1;
        }
        Ok(())
    }
}

/// A block's DC difference.
fn difference(part: &Part<'_>, bits: &mut Bits<'_>) -> Result<(), Stop> {
    let size = u32::from(part.dc.ok_or(Stop::Odd)?.decode(bits)?);
    if size > 16 {
        return Err(Stop::Odd);
    }
    bits.take(size).map(|_| ())
}
