//! Huffman codes of a sequential scan, read as fast as safe code can (ITU-T T.81, F.2.2): one table look-up and one
//! shift for each coefficient, no branch on byte stuffing, for that has been taken out before.

/// Bits that the first look-up sees. Longer codes are rare, for there are few of any length beyond it.
const LOOK: u32 = 11;
/// Bytes of ones behind the data: no code is all ones, so whoever reads on finds no code there.
pub(super) const PADDING: usize = 16;

/// The data end before the codes do, or hold bits that are no code.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoCode;

/// A code's symbol (run << 4 | size) with the length of code and magnitude together; length 0 for none.
#[derive(Clone, Copy, Default)]
struct Symbol(u16);

impl Symbol {
    fn new(symbol: u8, code_length: u32) -> Self {
        let total = code_length as u16 + u16::from(symbol & 15);
        Self(total | u16::from(symbol) << 6)
    }

    /// Bits of code and magnitude, 0 to 31. Other bits stand above the sixth: a shift ignores them.
    #[inline(always)]
    fn total(self) -> u32 {
        u32::from(self.0 & 63)
    }

    #[inline(always)]
    fn size(self) -> u32 {
        u32::from(self.0 >> 6 & 15)
    }

    #[inline(always)]
    fn run(self) -> usize {
        usize::from(self.0 >> 10)
    }

    #[inline(always)]
    fn is_none(self) -> bool {
        self.0 & 63 == 0
    }
}

/// One code table.
#[derive(Clone)]
pub(super) struct Table {
    short: Box<[Symbol; 1 << LOOK]>,
    /// Of each length 1 to 16: the first code that is too large, and what to add for the symbol's place.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
    /// What it was made from, so that a file with the same table (most have one of few) costs nothing.
    definition: Vec<u8>,
}

impl Table {
    /// From the definition in a DHT segment: 16 counts, then the symbols. `None` where it contradicts itself.
    fn new(definition: &[u8]) -> Option<Self> {
        let (lengths, symbols) = definition.split_first_chunk::<16>()?;
        let mut table = Self {
            short: Box::new([Symbol::default(); 1 << LOOK]),
            ends: [(0, 0); 16],
            symbols: symbols.to_vec(),
            definition: definition.to_vec(),
        };
        let (mut code, mut place) = (0_u32, 0_usize);
        for ((length, &count), end) in (1..).zip(lengths).zip(&mut table.ends) {
            let offset = place as i32 - code as i32;
            for _ in 0..count {
                let symbol = *symbols.get(place)?;
                if length <= LOOK {
                    let first = (code as usize) << (LOOK - length);
                    let last = first + (1 << (LOOK - length));
                    let entry = Symbol::new(symbol, length);
                    table.short.get_mut(first..last)?.fill(entry);
                }
                code += 1;
                place += 1;
            }
            // All ones must stay free.
            if code >= 1 << length {
                return None;
            }
            *end = (code, offset);
            code *= 2;
        }
        Some(table)
    }

    /// Keeps what is there when it was made from the same definition.
    pub(super) fn renew(old: &mut Option<Self>, definition: &[u8]) -> Option<()> {
        if old.as_ref().is_none_or(|old| old.definition != definition) {
            *old = Some(Self::new(definition)?);
        }
        Some(())
    }

    /// Whether it can be a table of DC differences: sizes alone.
    pub(super) fn is_for_differences(&self) -> bool {
        self.symbols.iter().all(|&symbol| symbol < 16)
    }

    #[cold]
    #[inline(never)]
    fn long(&self, held: u64) -> Result<Symbol, NoCode> {
        for (length, &(end, offset)) in (1..).zip(&self.ends).skip(LOOK as usize) {
            let code = (held >> (64 - length)) as u32;
            if code < end {
                let place = usize::try_from(code as i32 + offset).ok();
                let symbol = place.and_then(|place| self.symbols.get(place));
                return symbol.map(|&s| Symbol::new(s, length)).ok_or(NoCode);
            }
        }
        Err(NoCode)
    }
}

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

    /// The value of a symbol's magnitude, whose size is 0 to 15.
    #[inline(always)]
    fn value(&self, symbol: Symbol) -> i32 {
        let (total, size) = (symbol.total(), symbol.size());
        // The magnitude's bits on top; numbers below half of their range stand for negative ones.
        let magnitude = self.held << (total.wrapping_sub(size) & 63);
        let negative = !((magnitude as i64) >> 63) as i32;
        let bits = (magnitude >> 1 >> (63 - size)) as i32;
        bits.wrapping_add(negative & 1_i32.wrapping_sub(1 << size))
    }

    #[inline(always)]
    fn take(&mut self, symbol: Symbol) {
        self.held <<= symbol.total();
        self.count = self.count.wrapping_sub(symbol.total());
    }

    /// A block's coefficients times their quantisers, in rows; or nothing of it with `KEEP` off. `block` holds zeros
    /// before. Returns the place in zigzag order behind the last coefficient.
    #[inline(always)]
    pub(super) fn block<const KEEP: bool>(
        &mut self,
        (dc, ac): (&Table, &Table),
        previous: &mut i32,
        quantisers: &[i16; 64],
        block: &mut [i16; 64],
    ) -> Result<usize, NoCode> {
        // A copy of its own stays in registers.
        let mut bits = *self;
        bits.refill();
        let mut symbol = bits.look(dc);
        if symbol.is_none() {
            symbol = dc.long(bits.held)?;
        }
        *previous = previous.wrapping_add(bits.value(symbol));
        bits.take(symbol);
        if KEEP {
            block[0] = (*previous as i16).wrapping_mul(quantisers[0]);
        }
        let mut k = 1;
        let mut end = 1;
        bits.refill();
        while k < 64 {
            // Two symbols to a refill, but for very long ones.
            if bits.coefficient::<KEEP>(ac, quantisers, block, &mut k, &mut end)? || k > 63 {
                break;
            }
            if bits.count < 31 {
                bits.refill();
            }
            if bits.coefficient::<KEEP>(ac, quantisers, block, &mut k, &mut end)? {
                break;
            }
            bits.refill();
        }
        *self = bits;
        Ok(end)
    }

    /// Reads one coefficient at `k` or behind; true at the block's end.
    #[inline(always)]
    fn coefficient<const KEEP: bool>(
        &mut self,
        ac: &Table,
        quantisers: &[i16; 64],
        block: &mut [i16; 64],
        k: &mut usize,
        end: &mut usize,
    ) -> Result<bool, NoCode> {
        let mut symbol = self.look(ac);
        if symbol.size() == 0 {
            if symbol.is_none() {
                symbol = ac.long(self.held)?;
            }
            if symbol.size() == 0 {
                self.take(symbol);
                *k += 16;
                return match symbol.run() {
                    0 => Ok(true),
                    15 => Ok(false),
                    _ => Err(NoCode),
                };
            }
        }
        let at = *k + symbol.run();
        if at > 63 {
            return Err(NoCode);
        }
        if KEEP {
            let place = usize::from(ZIGZAG[at]);
            block[place & 63] = (self.value(symbol) as i16).wrapping_mul(quantisers[at]);
        }
        self.take(symbol);
        *k = at + 1;
        *end = at + 1;
        Ok(false)
    }
}

/// Where the coefficients lie in their block, row by row (T.81, figure A.6).
const ZIGZAG: [u8; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];
