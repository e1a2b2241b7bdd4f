//! Huffman codes of a sequential scan, read as fast as safe code can (ITU-T T.81, F.2.2): one table look-up and one
//! shift for up to two coefficients, no branch on byte stuffing, for that has been taken out before.

use super::tables::{LOOK, LOOK_SEVERAL, MOST_TAKEN, Symbol, Table};

/// Bytes of ones behind the data: no code is all ones, so whoever reads on finds no code there.
pub(super) const PADDING: usize = 16;

/// The data end before the codes do, or hold bits that are no code.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoCode;

/// Reads bits, the earliest in the top bit of `held`.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    /// Without stuffing, `PADDING` bytes of ones behind.
    data: &'a [u8],
    at: usize,
    held: u64,
    count: u32,
}

impl<'a> Bits<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self {
            data,
            at: 0,
            held: 0,
            count: 0,
        }
    }

    /// Whether more bits were taken than there are.
    pub(super) fn is_exhausted(&self) -> bool {
        let taken = self.at * 8 - self.count as usize;
        taken > self.data.len().saturating_sub(PADDING) * 8
    }

    /// Holds at least 56 bits afterwards. Bits below `count` are those of the data already (Giesen 2018,
    /// <https://fgiesen.wordpress.com/2018/02/20/reading-bits-in-far-too-many-ways-part-2/>, variant 4).
    #[inline(always)]
    fn refill(&mut self) {
        let next = self.data.get(self.at..self.at.wrapping_add(8));
        let next = next.and_then(<[u8]>::first_chunk::<8>);
        let word = next.map_or(u64::MAX, |bytes| u64::from_be_bytes(*bytes));
        self.held |= word >> (self.count & 63);
        self.at = self
            .at
            .wrapping_add((63_u32.wrapping_sub(self.count) >> 3) as usize);
        self.count |= 56;
    }

    #[inline(always)]
    fn look(&self, table: &Table) -> Symbol {
        table.short[(self.held >> (64 - LOOK)) as usize]
    }

    #[inline(always)]
    fn take(&mut self, count: u32) {
        self.held <<= count;
        self.count = self.count.wrapping_sub(count);
    }

    /// A block's coefficients as they are stored, in rows; or nothing of it with `KEEP` off. `block` holds zeros before.
    /// Returns the place in zigzag order behind the last coefficient.
    #[inline(always)]
    pub(super) fn block<const KEEP: bool>(
        &mut self,
        (dc, ac): (&Table, &Table),
        previous: &mut i32,
        block: &mut [i16; 64],
    ) -> Result<usize, NoCode> {
        // A copy of its own stays in registers.
        let mut bits = *self;
        bits.refill();
        let mut symbol = bits.look(dc);
        if symbol.is_none() {
            symbol = dc.long(bits.held)?;
        }
        *previous = previous.wrapping_add(symbol.value(bits.held));
        bits.take(symbol.total());
        if KEEP {
            block[0] = *previous as i16;
        }
        let mut k = 1;
        loop {
            bits.refill();
            if bits.several::<KEEP>(ac, block, &mut k)?
                || bits.several::<KEEP>(ac, block, &mut k)?
            {
                break;
            }
            if bits.count < MOST_TAKEN {
                bits.refill();
            }
            if bits.several::<KEEP>(ac, block, &mut k)? {
                break;
            }
        }
        *self = bits;
        Ok(k)
    }

    /// Reads one code at place `k`, of whatever length; holds at least 56 bits afterwards.
    #[inline(never)]
    fn one(mut self, ac: &Table, k: usize) -> Result<One<'a>, NoCode> {
        self.refill();
        let mut symbol = self.look(ac);
        if symbol.is_none() {
            symbol = ac.long(self.held)?;
        }
        let (at, value) = (k + symbol.run(), symbol.value(self.held) as i16);
        self.take(symbol.total());
        self.refill();
        let (behind, is_last) = match (symbol.run(), symbol.size()) {
            (0, 0) => (k, true),
            // Sixteen zeros, and more behind them if the block has room.
            (15, 0) => (k + 16, k + 16 > 63),
            (_, 0) => return Err(NoCode),
            _ if at > 63 => return Err(NoCode),
            _ => (at + 1, at == 63),
        };
        Ok(One {
            bits: self,
            at,
            value,
            behind,
            is_last,
        })
    }

    /// Reads what one look-up shows of the coefficients at `k` and behind; true at the block's end.
    #[inline(always)]
    fn several<const KEEP: bool>(
        &mut self,
        ac: &Table,
        block: &mut [i16; 64],
        k: &mut usize,
    ) -> Result<bool, NoCode> {
        let several = ac.several[(self.held >> (64 - LOOK_SEVERAL)) as usize];
        let behind = k.wrapping_add(several.behind());
        // The last place ends the block by itself: what follows it is another block's.
        if behind > 63 {
            let one = self.one(ac, *k)?;
            *self = one.bits;
            *k = one.behind;
            if KEEP {
                block[usize::from(ZIGZAG[one.at & 63]) & 63] |= one.value;
            }
            return Ok(one.is_last);
        }
        if KEEP {
            for (place, value) in [several.first(self.held), several.second()] {
                let place = usize::from(ZIGZAG[k.wrapping_add(place) & 63]);
                block[place & 63] = value;
            }
        }
        self.take(several.total());
        *k = behind;
        Ok(several.is_last())
    }
}

/// What a single code stands for.
struct One<'a> {
    /// What is behind it.
    bits: Bits<'a>,
    /// Place and value; the value is zero where there is no coefficient.
    at: usize,
    value: i16,
    /// The next place.
    behind: usize,
    is_last: bool,
}

/// Where the coefficients lie in their block, row by row (T.81, figure A.6).
pub(super) const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
