//! A pickle's bytes, and the instructions that weights need, named as in Python's pickletools.

use super::{Flaw, Value};

pub(super) mod op {
    pub(in super::super) const PROTO: u8 = 0x80;
    pub(in super::super) const FRAME: u8 = 0x95;
    pub(in super::super) const MARK: u8 = b'(';
    pub(in super::super) const STOP: u8 = b'.';
    pub(in super::super) const POP: u8 = b'0';
    pub(in super::super) const POP_MARK: u8 = b'1';
    pub(in super::super) const NONE: u8 = b'N';
    pub(in super::super) const NEWTRUE: u8 = 0x88;
    pub(in super::super) const NEWFALSE: u8 = 0x89;
    pub(in super::super) const INT: u8 = b'I';
    pub(in super::super) const LONG: u8 = b'L';
    pub(in super::super) const LONG1: u8 = 0x8a;
    pub(in super::super) const BININT: u8 = b'J';
    pub(in super::super) const BININT1: u8 = b'K';
    pub(in super::super) const BININT2: u8 = b'M';
    pub(in super::super) const FLOAT: u8 = b'F';
    pub(in super::super) const BINFLOAT: u8 = b'G';
    pub(in super::super) const STRING: u8 = b'S';
    pub(in super::super) const BINSTRING: u8 = b'T';
    pub(in super::super) const SHORT_BINSTRING: u8 = b'U';
    pub(in super::super) const UNICODE: u8 = b'V';
    pub(in super::super) const BINUNICODE: u8 = b'X';
    pub(in super::super) const SHORT_BINUNICODE: u8 = 0x8c;
    pub(in super::super) const BINUNICODE8: u8 = 0x8d;
    pub(in super::super) const BINBYTES: u8 = b'B';
    pub(in super::super) const SHORT_BINBYTES: u8 = b'C';
    pub(in super::super) const EMPTY_TUPLE: u8 = b')';
    pub(in super::super) const TUPLE1: u8 = 0x85;
    pub(in super::super) const TUPLE2: u8 = 0x86;
    pub(in super::super) const TUPLE3: u8 = 0x87;
    pub(in super::super) const TUPLE: u8 = b't';
    pub(in super::super) const EMPTY_LIST: u8 = b']';
    pub(in super::super) const LIST: u8 = b'l';
    pub(in super::super) const APPEND: u8 = b'a';
    pub(in super::super) const APPENDS: u8 = b'e';
    pub(in super::super) const EMPTY_DICT: u8 = b'}';
    pub(in super::super) const DICT: u8 = b'd';
    pub(in super::super) const SETITEM: u8 = b's';
    pub(in super::super) const SETITEMS: u8 = b'u';
    pub(in super::super) const PUT: u8 = b'p';
    pub(in super::super) const BINPUT: u8 = b'q';
    pub(in super::super) const LONG_BINPUT: u8 = b'r';
    pub(in super::super) const MEMOIZE: u8 = 0x94;
    pub(in super::super) const GET: u8 = b'g';
    pub(in super::super) const BINGET: u8 = b'h';
    pub(in super::super) const LONG_BINGET: u8 = b'j';
    pub(in super::super) const GLOBAL: u8 = b'c';
    pub(in super::super) const STACK_GLOBAL: u8 = 0x93;
    pub(in super::super) const INST: u8 = b'i';
    pub(in super::super) const EXT1: u8 = 0x82;
    pub(in super::super) const EXT4: u8 = 0x84;
    pub(in super::super) const BINPERSID: u8 = b'Q';
    pub(in super::super) const REDUCE: u8 = b'R';
    pub(in super::super) const BUILD: u8 = b'b';
}

/// What is left of the program.
pub(super) struct Program<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Program<'a> {
    pub(super) fn take(&mut self, count: usize) -> Result<&'a [u8], Flaw> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return damaged("ends early");
        };
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn number<const N: usize>(&mut self) -> Result<u64, Flaw> {
        Ok(self
            .take(N)?
            .iter()
            .rev()
            .fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    pub(super) fn counted<const N: usize>(&mut self) -> Result<&'a [u8], Flaw> {
        let length = self.number::<N>()?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    pub(super) fn line(&mut self) -> Result<&'a str, Flaw> {
        let Some(length) = self.rest.iter().position(|&byte| byte == b'\n') else {
            return damaged("ends early");
        };
        let line = &self.take(length + 1)?[..length];
        let Ok(line) = std::str::from_utf8(line) else {
            return damaged("has a line that is not UTF-8");
        };
        Ok(line.trim_end_matches('\r'))
    }

    pub(super) fn line_number(&mut self) -> Result<u64, Flaw> {
        self.line()?
            .parse()
            .or_else(|_| damaged("has a place that is no number"))
    }

    /// A number, a text or the like, in the many ways of writing them.
    pub(super) fn plain_value(&mut self, instruction: u8) -> Result<Value, Flaw> {
        Ok(match instruction {
            op::NONE => Value::None,
            op::NEWTRUE | op::NEWFALSE => Value::Opaque,
            op::BININT1 => int(self.number::<1>()?),
            op::BININT2 => int(self.number::<2>()?),
            op::BININT => Value::Int(self.twos_complement(4)?),
            op::LONG1 => match self.number::<1>()? {
                // Nothing that a tensor has is longer than eight bytes.
                count @ 0..=8 => Value::Int(self.twos_complement(count as usize)?),
                count => self.take(count as usize).map(|_| Value::Opaque)?,
            },
            op::INT | op::LONG => {
                let line = self.line()?.trim_end_matches('L');
                line.parse().map_or(Value::Opaque, Value::Int)
            }
            op::FLOAT => self.line().map(|_| Value::Opaque)?,
            op::BINFLOAT => self.take(8).map(|_| Value::Opaque)?,
            op::BINUNICODE | op::BINSTRING => text(self.counted::<4>()?),
            op::SHORT_BINUNICODE | op::SHORT_BINSTRING => text(self.counted::<1>()?),
            op::BINUNICODE8 => text(self.counted::<8>()?),
            op::STRING | op::UNICODE => Value::Text(self.line()?.trim_matches(['\'', '"']).into()),
            op::SHORT_BINBYTES => self.counted::<1>().map(|_| Value::Opaque)?,
            op::BINBYTES => self.counted::<4>().map(|_| Value::Opaque)?,
            other => {
                return damaged(format!(
                    "uses the instruction {other:#04x}, which weights do not need"
                ));
            }
        })
    }

    /// Little-endian, of at most eight bytes.
    fn twos_complement(&mut self, count: usize) -> Result<i64, Flaw> {
        let bytes = self.take(count)?;
        let sign = if bytes.last().is_some_and(|&byte| byte >= 0x80) {
            -1i64
        } else {
            0
        };
        Ok(bytes
            .iter()
            .rev()
            .fold(sign, |number, &byte| number << 8 | i64::from(byte)))
    }
}

fn int(number: u64) -> Value {
    i64::try_from(number).map_or(Value::Opaque, Value::Int)
}

/// Python 2's byte strings come this way, too; those that are no text are no names either.
fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or(Value::Opaque, |text| Value::Text(text.into()))
}

pub(super) fn damaged<T>(reason: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Damaged(format!("its pickle {}", reason.into())))
}
