//! What the segments before the scan say, if it is of the usual kind (ITU-T T.81, annex B; JFIF; Adobe's APP14).

use super::super::survey::Survey;
use super::huffman::ZIGZAG;
use super::tables::Table;
use std::ops::Range;

/// Code tables in force: four for DC, four for AC, kept from picture to picture.
#[derive(Default)]
pub(super) struct Tables {
    all: [Option<Table>; 8],
    /// Those that the present file has defined, a bit for each.
    defined: u8,
}

impl Tables {
    pub(super) fn differences(&self, index: usize) -> Option<&Table> {
        self.get(index & 3)
            .filter(|table| table.is_for_differences())
    }

    pub(super) fn coefficients(&self, index: usize) -> Option<&Table> {
        self.get(4 + (index & 3))
    }

    fn get(&self, index: usize) -> Option<&Table> {
        let table = self.all.get(index)?.as_ref();
        table.filter(|_| self.defined >> index & 1 == 1)
    }

    fn define(&mut self, mut content: &[u8]) -> Option<()> {
        while let Some((&place, rest)) = content.split_first() {
            let lengths = rest.first_chunk::<16>()?;
            let count: usize = lengths.iter().map(|&n| usize::from(n)).sum();
            let (definition, rest) = rest.split_at_checked(16 + count)?;
            if place & 0xec != 0 {
                return None;
            }
            let index = usize::from(place >> 4) * 4 + usize::from(place & 3);
            Table::renew(self.all.get_mut(index)?, definition, index > 3)?;
            self.defined |= 1 << index;
            content = rest;
        }
        Some(())
    }
}

/// A component as the headers describe it.
pub(super) struct Described {
    /// Blocks across and down in an MCU.
    pub(super) blocks: (usize, usize),
    /// Places of its code tables.
    pub(super) dc: usize,
    pub(super) ac: usize,
    /// In rows.
    pub(super) quantisers: [i16; 64],
}

/// The headers of a picture of the usual kind.
pub(super) struct Headers {
    /// One, or luma and two of chroma.
    pub(super) components: Vec<Described>,
    /// Greatest sampling factors.
    pub(super) most: (usize, usize),
    /// MCUs between restart markers, 0 for none.
    pub(super) restart: usize,
    /// Where the scan's data lie.
    pub(super) data: Range<usize>,
}

impl Headers {
    /// `None` for another kind.
    pub(super) fn read(bytes: &[u8], survey: &Survey, tables: &mut Tables) -> Option<Self> {
        let frame = &survey.frame;
        let (scan, data) = survey.scan.clone()?;
        if frame.header.progressive || survey.scans != 1 {
            return None;
        }
        tables.defined = 0;
        let mut quantisers = [None; 4];
        let mut restart = 0;
        let (mut jfif, mut adobe) = (false, None);
        for (code, range) in &survey.segments {
            let content = bytes.get(range.clone())?;
            match code {
                0xc4 => tables.define(content)?,
                0xdb => define_quantisers(content, &mut quantisers)?,
                0xdd => restart = usize::from(u16::from_be_bytes(*content.first_chunk()?)),
                0xe0 => jfif |= content.starts_with(b"JFIF\0"),
                0xee if content.starts_with(b"Adobe") => adobe = content.get(11).copied(),
                _ => {}
            }
        }
        let ids = frame.ids();
        let usual = match (frame.sampling(), ids) {
            ([_], _) => true,
            (&[(1 | 2, 1 | 2), (1, 1), (1, 1)], ids) => match (jfif, adobe) {
                (true, _) | (false, Some(1)) => true,
                (false, Some(_)) => false,
                (false, None) => ids != b"RGB",
            },
            _ => false,
        };
        // Count, pairs of selector and tables, then the band, which is whole in a sequential scan.
        let scan = bytes.get(scan)?;
        let (&count, selectors) = scan.split_first()?;
        if !usual || usize::from(count) != ids.len() || selectors.len() != ids.len() * 2 + 3 {
            return None;
        }
        let mut components = Vec::with_capacity(3);
        for (index, &[selector, places]) in (0..ids.len()).zip(selectors.as_chunks::<2>().0) {
            if ids[index] != selector || ids[..index].contains(&selector) {
                return None;
            }
            components.push(Described {
                // Alone, a component comes block by block whatever its factors are.
                blocks: match ids.len() {
                    1 => (1, 1),
                    _ => frame.sampling()[index],
                },
                dc: usize::from(places >> 4),
                ac: usize::from(places & 15),
                quantisers: quantisers.get(frame.quantiser(index))?.as_ref().copied()?,
            });
        }
        if components.iter().any(|c| c.dc > 3 || c.ac > 3) {
            return None;
        }
        Some(Self {
            most: components.first()?.blocks,
            components,
            restart,
            data,
        })
    }
}

fn define_quantisers(mut content: &[u8], all: &mut [Option<[i16; 64]>; 4]) -> Option<()> {
    while let Some((&place, rest)) = content.split_first() {
        // Of 8 bits; those of 16 go with samples of 12.
        let (values, rest) = rest.split_first_chunk::<64>()?;
        let mut rows = [0; 64];
        for (&value, &place) in values.iter().zip(&ZIGZAG) {
            rows[usize::from(place)] = i16::from(value);
        }
        *all.get_mut(usize::from(place))? = Some(rows);
        content = rest;
    }
    Some(())
}
