//! Code tables of a sequential scan as their reader wants them (ITU-T T.81, annex C and F.2.2).

use super::huffman::NoCode;

/// Bits that a look-up for one code sees. Longer codes are rare, for there are few of any length beyond it.
pub(super) const LOOK: u32 = 11;
/// Bits that a look-up for several codes sees. With one more, the tables of luma and chroma fill the nearest cache, which
/// costs more than is gained.
pub(super) const LOOK_SEVERAL: u32 = 10;
/// Most bits that are taken after such a look-up: a code, and a magnitude that reaches further.
pub(super) const MOST_TAKEN: u32 = LOOK_SEVERAL + 15;

/// A code's symbol (run << 4 | size) with the length of code and magnitude together; length 0 for none.
#[derive(Clone, Copy, Default)]
pub(super) struct Symbol(u16);

impl Symbol {
    fn new(symbol: u8, code_length: u32) -> Self {
        let total = code_length as u16 + u16::from(symbol & 15);
        Self(total | u16::from(symbol) << 6)
    }

    /// Bits of code and magnitude, 0 to 31. Other bits stand above the sixth: a shift ignores them.
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        u32::from(self.0 & 63)
    }

    #[inline(always)]
    pub(super) fn size(self) -> u32 {
        u32::from(self.0 >> 6 & 15)
    }

    #[inline(always)]
    pub(super) fn run(self) -> usize {
        usize::from(self.0 >> 10)
    }

    /// The value of its magnitude, whose size is 0 to 15, where `held` begins with its code.
    #[inline(always)]
    pub(super) fn value(self, held: u64) -> i32 {
        magnitude(
            held << (self.total().wrapping_sub(self.size()) & 63),
            self.size(),
        )
    }

    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        self.0 & 63 == 0
    }
}

/// The number that the first `size` bits of `held` stand for, 0 to 15: those below half of their range are negative ones.
#[inline(always)]
fn magnitude(held: u64, size: u32) -> i32 {
    let held = held as i64;
    let signs = (held >> 63) as i32;
    let bits = (held >> 1 >> (63 - (size & 63))) as i32;
    // Less 2 to the size where it sticks out above, and 1 more than less it where it does not.
    bits.wrapping_add((-1_i64 << size) as i32 ^ signs)
        .wrapping_add(1)
}

/// Up to two coefficients and a block's end behind them, as far as one look-up shows them; the first may have a magnitude
/// that reaches further. From the lowest bit: how many bits they have in 6; whether the block ends; whether the first reaches
/// further; in a byte each the place behind them, the first's and the second's, counted from the place at hand; 16 for
/// the first's value, or its [`Symbol`] if it reaches further, and 16 for the second's. What is not there is a zero behind
/// the others.
#[derive(Clone, Copy)]
pub(super) struct Several(u64);

impl Several {
    /// Leads behind any block: to be read one by one.
    const NONE: Self = Self(64 << 8);

    /// What begins with these bits of `held`, `LOOK_SEVERAL` of them.
    fn new(short: &[Symbol; 1 << LOOK], held: u64) -> Self {
        let (mut bits, mut behind, mut is_last) = (0, 0, false);
        let mut places = [0; 2];
        let (mut is_far, mut values) = (false, [0; 2]);
        let mut found = 0;
        while !is_last && bits < LOOK_SEVERAL {
            let rest = held << bits;
            let symbol = short[(rest >> (64 - LOOK)) as usize];
            let seen = match found {
                0 => symbol.total() - symbol.size(),
                _ => symbol.total(),
            };
            if symbol.is_none() || bits + seen > LOOK_SEVERAL {
                break;
            }
            match (symbol.run(), symbol.size()) {
                (0, 0) => is_last = true,
                (_, 0) => break,
                _ if found == 2 => break,
                (run, _) => {
                    places[found] = behind + run as u64;
                    behind = places[found] + 1;
                    is_far = bits + symbol.total() > LOOK_SEVERAL;
                    values[found] = match is_far {
                        true => symbol.0,
                        false => symbol.value(rest) as u16,
                    };
                    found += 1;
                }
            }
            bits += symbol.total();
        }
        if bits == 0 {
            return Self::NONE;
        }
        for place in &mut places[found..] {
            *place = behind;
        }
        let [first, second] = places;
        let low = bits | u32::from(is_last) << 6 | u32::from(is_far) << 7;
        let places = behind << 8 | first << 16 | second << 24;
        let [first, second] = values.map(u64::from);
        Self(u64::from(low) | places | first << 32 | second << 48)
    }

    /// At most [`MOST_TAKEN`].
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        self.0 as u32 & 63
    }

    #[inline(always)]
    pub(super) fn is_last(self) -> bool {
        self.0 >> 6 & 1 == 1
    }

    #[inline(always)]
    pub(super) fn behind(self) -> usize {
        usize::from((self.0 >> 8) as u8)
    }

    #[inline(always)]
    pub(super) fn first(self, held: u64) -> (usize, i16) {
        let mut value = (self.0 >> 32) as i16;
        if self.0 >> 7 & 1 == 1 {
            std::hint::cold_path();
            value = Symbol(value as u16).value(held) as i16;
        }
        (usize::from((self.0 >> 16) as u8), value)
    }

    #[inline(always)]
    pub(super) fn second(self) -> (usize, i16) {
        (usize::from((self.0 >> 24) as u8), (self.0 >> 48) as i16)
    }
}

/// One code table.
#[derive(Clone)]
pub(super) struct Table {
    pub(super) short: Box<[Symbol; 1 << LOOK]>,
    pub(super) several: Box<[Several; 1 << LOOK_SEVERAL]>,
    /// Of each length 1 to 16: the first code that is too large, and what to add for the symbol's place.
    ends: [(u32, i32); 16],
    symbols: Vec<u8>,
    /// What it was made from, so that a file with the same table (most have one of few) costs nothing.
    definition: Vec<u8>,
}

impl Table {
    /// From the definition in a DHT segment: 16 counts, then the symbols. `None` where it contradicts itself.
    fn new(definition: &[u8], is_ac: bool) -> Option<Self> {
        let (lengths, symbols) = definition.split_first_chunk::<16>()?;
        let mut table = Self {
            short: Box::new([Symbol::default(); 1 << LOOK]),
            several: Box::new([Several::NONE; 1 << LOOK_SEVERAL]),
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
        if is_ac {
            for (several, bits) in table.several.iter_mut().zip(0..) {
                *several = Several::new(&table.short, bits << (64 - LOOK_SEVERAL));
            }
        }
        Some(table)
    }

    /// Keeps what is there when it was made from the same definition.
    pub(super) fn renew(old: &mut Option<Self>, definition: &[u8], is_ac: bool) -> Option<()> {
        if old.as_ref().is_none_or(|old| old.definition != definition) {
            *old = Some(Self::new(definition, is_ac)?);
        }
        Some(())
    }

    /// Whether it can be a table of DC differences: sizes alone.
    pub(super) fn is_for_differences(&self) -> bool {
        self.symbols.iter().all(|&symbol| symbol < 16)
    }

    #[cold]
    #[inline(never)]
    pub(super) fn long(&self, held: u64) -> Result<Symbol, NoCode> {
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
