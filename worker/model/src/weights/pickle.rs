//! A pickle reader that builds values and never runs anything.
//!
//! Pickle (Python's PEP 307, 3154) is a program for a stack machine; two of its instructions call functions of the
//! reader's process. Here a global is a word on the stack, only those of tensors are allowed, and calling one of them
//! builds a description.

use std::collections::BTreeMap;
use std::rc::Rc;

use tch::Kind;

/// Values on the stack and in the memo at most.
const MOST_VALUES: usize = 4_000_000;
/// How deep containers may lie in each other when tensors are looked for.
const DEEPEST: usize = 16;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It names a global that is no tensor's.
    Global(String),
    /// It is damaged or uses what weights do not need.
    Damaged(String),
}

/// Where a tensor's bytes lie.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    pub(super) kind: Kind,
    pub(super) key: String,
}

/// A tensor, as the pickle describes it.
#[derive(Debug, Clone)]
pub(super) struct TensorPlan {
    pub(super) storage: Storage,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

#[derive(Debug, Clone)]
enum Value {
    Mark,
    None,
    Int(i64),
    /// Booleans, floats and byte strings: read over, never needed.
    Plain,
    Text(Rc<str>),
    Tuple(Rc<Vec<Value>>),
    List(Rc<std::cell::RefCell<Vec<Value>>>),
    Dict(Rc<std::cell::RefCell<Vec<(Value, Value)>>>),
    Global(Global),
    Storage(Rc<Storage>),
    Tensor(Rc<TensorPlan>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Global {
    RebuildTensor,
    RebuildParameter,
    OrderedDict,
    StorageKind(Kind),
    /// Harmless and without a meaning here: dtypes, sizes, devices.
    Ignored,
}

fn global(module: &str, name: &str) -> Option<Global> {
    let storage = |kind| Some(Global::StorageKind(kind));
    match (module, name) {
        ("torch._utils", "_rebuild_tensor_v2") => Some(Global::RebuildTensor),
        ("torch._utils", "_rebuild_parameter") => Some(Global::RebuildParameter),
        ("collections", "OrderedDict") => Some(Global::OrderedDict),
        ("torch", "Size" | "device") => Some(Global::Ignored),
        ("torch", "float32" | "float64" | "float16" | "bfloat16" | "int64" | "int32") => Some(Global::Ignored),
        ("torch" | "torch.storage", name) => match name {
            "DoubleStorage" => storage(Kind::Double),
            "FloatStorage" => storage(Kind::Float),
            "HalfStorage" => storage(Kind::Half),
            "BFloat16Storage" => storage(Kind::BFloat16),
            "LongStorage" => storage(Kind::Int64),
            "IntStorage" => storage(Kind::Int),
            "ShortStorage" => storage(Kind::Int16),
            "CharStorage" => storage(Kind::Int8),
            "ByteStorage" | "UntypedStorage" => storage(Kind::Uint8),
            "BoolStorage" => storage(Kind::Bool),
            _ => None,
        },
        _ => None,
    }
}

/// All tensors of the pickle by their names: of the outermost dictionary, or of the one inside it that holds tensors
/// (`state_dict`, `model`, …).
pub(super) fn tensors(bytes: &[u8]) -> Result<BTreeMap<String, TensorPlan>, Flaw> {
    let value = Machine { bytes, at: 0, stack: Vec::new(), memo: BTreeMap::new() }.run()?;
    let mut best = BTreeMap::new();
    search(&value, DEEPEST, &mut best);
    if best.is_empty() { Err(Flaw::Damaged("it holds no tensors by name".to_owned())) } else { Ok(best) }
}

/// The dictionary with the most tensors wins: a checkpoint may also hold an optimizer's state by number.
fn search(value: &Value, depth: usize, best: &mut BTreeMap<String, TensorPlan>) {
    let Value::Dict(entries) = value else { return };
    if depth == 0 {
        return;
    }
    let entries = entries.borrow();
    let here: BTreeMap<String, TensorPlan> = entries
        .iter()
        .filter_map(|entry| match entry {
            (Value::Text(name), Value::Tensor(plan)) => Some((name.to_string(), plan.as_ref().clone())),
            _ => None,
        })
        .collect();
    if here.len() > best.len() {
        *best = here;
    }
    for (_, inner) in entries.iter() {
        search(inner, depth - 1, best);
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    stack: Vec<Value>,
    memo: BTreeMap<u32, Value>,
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, Flaw> {
    Err(Flaw::Damaged(reason.into()))
}

impl Machine<'_> {
    fn run(mut self) -> Result<Value, Flaw> {
        loop {
            if self.stack.len() + self.memo.len() > MOST_VALUES {
                return damaged("its pickle holds too many values");
            }
            let op = self.take(1)?[0];
            match op {
                0x80 => drop(self.take(1)?),                        // PROTO
                0x95 => drop(self.take(8)?),                        // FRAME
                b'.' => return self.pop(),                          // STOP
                b'(' => self.push(Value::Mark),                     // MARK
                b'N' => self.push(Value::None),                     // NONE
                0x88 | 0x89 => self.push(Value::Plain),             // NEWTRUE, NEWFALSE
                b'J' => self.int_of::<4>(true)?,                    // BININT
                b'K' => self.int_of::<1>(false)?,                   // BININT1
                b'M' => self.int_of::<2>(false)?,                   // BININT2
                0x8a => self.long()?,                               // LONG1
                b'I' => self.decimal()?,                            // INT
                b'G' => self.skip(8)?,                              // BINFLOAT
                b'F' => {
                    self.line()?;
                    self.push(Value::Plain);
                } // FLOAT
                b'X' => self.text::<4>()?,                          // BINUNICODE
                0x8c => self.text::<1>()?,                          // SHORT_BINUNICODE
                b'U' => self.text::<1>()?,                          // SHORT_BINSTRING
                b'C' => self.bytes_of::<1>()?,                      // SHORT_BINBYTES
                b'B' => self.bytes_of::<4>()?,                      // BINBYTES
                b')' => self.push(Value::Tuple(Rc::default())),     // EMPTY_TUPLE
                b']' => self.push(Value::List(Rc::default())),      // EMPTY_LIST
                b'}' => self.push(Value::Dict(Rc::default())),      // EMPTY_DICT
                0x85 => self.tuple(1)?,                             // TUPLE1
                0x86 => self.tuple(2)?,                             // TUPLE2
                0x87 => self.tuple(3)?,                             // TUPLE3
                b't' => {
                    let items = self.to_mark()?;
                    self.push(Value::Tuple(Rc::new(items)));
                } // TUPLE
                b'l' => {
                    let items = self.to_mark()?;
                    self.push(Value::List(Rc::new(items.into())));
                } // LIST
                b'd' => {
                    let items = self.to_mark()?;
                    self.push(Value::Dict(Rc::default()));
                    self.set_items(items)?;
                } // DICT
                b'a' => {
                    let item = self.pop()?;
                    self.append(vec![item])?;
                } // APPEND
                b'e' => {
                    let items = self.to_mark()?;
                    self.append(items)?;
                } // APPENDS
                b's' => {
                    let value = self.pop()?;
                    let key = self.pop()?;
                    self.set_items(vec![key, value])?;
                } // SETITEM
                b'u' => {
                    let items = self.to_mark()?;
                    self.set_items(items)?;
                } // SETITEMS
                b'q' => self.put(1)?,                               // BINPUT
                b'r' => self.put(4)?,                               // LONG_BINPUT
                0x94 => {
                    let place = u32::try_from(self.memo.len()).unwrap_or(u32::MAX);
                    self.remember(place)?;
                } // MEMOIZE
                b'h' => self.get(1)?,                               // BINGET
                b'j' => self.get(4)?,                               // LONG_BINGET
                b'0' => drop(self.pop()?),                          // POP
                b'c' => {
                    let (module, name) = (self.line()?, self.line()?);
                    self.global(&module, &name)?;
                } // GLOBAL
                0x93 => {
                    let (name, module) = (self.pop()?, self.pop()?);
                    let (Value::Text(module), Value::Text(name)) = (module, name) else {
                        return damaged("a global's name is no text");
                    };
                    self.global(&module, &name)?;
                } // STACK_GLOBAL
                b'Q' => self.storage()?,                            // BINPERSID
                b'R' => self.call()?,                               // REDUCE
                b'b' => drop(self.pop()?),                          // BUILD: an ordered dictionary's own attributes
                // INST, OBJ, NEWOBJ and NEWOBJ_EX make instances: name what they want to make.
                b'i' => {
                    let (module, name) = (self.line()?, self.line()?);
                    return Err(Flaw::Global(format!("{module}.{name}")));
                }
                0x82..=0x84 => return Err(Flaw::Global("an entry of Python's extension registry".to_owned())),
                other => return damaged(format!("its pickle uses the instruction {other:#04x}, which weights do not need")),
            }
        }
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Flaw> {
        let end = self.at.checked_add(count).filter(|&end| end <= self.bytes.len());
        let Some(end) = end else { return damaged("its pickle ends early") };
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, Flaw> {
        Ok(self.take(N)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn skip(&mut self, count: usize) -> Result<(), Flaw> {
        self.take(count)?;
        self.push(Value::Plain);
        Ok(())
    }

    fn int_of<const N: usize>(&mut self, signed: bool) -> Result<(), Flaw> {
        let number = self.number::<N>()?;
        let value = if signed { i64::from(number as u32 as i32) } else { number as i64 };
        self.push(Value::Int(value));
        Ok(())
    }

    fn long(&mut self) -> Result<(), Flaw> {
        let count = usize::from(self.take(1)?[0]);
        let bytes = self.take(count)?;
        let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
        let value = if count <= 8 {
            let start = if negative { -1i64 } else { 0 };
            Value::Int(bytes.iter().rev().fold(start, |number, &byte| number << 8 | i64::from(byte)))
        } else {
            Value::Plain
        };
        self.push(value);
        Ok(())
    }

    fn decimal(&mut self) -> Result<(), Flaw> {
        let line = self.line()?;
        self.push(line.trim().parse().map_or(Value::Plain, Value::Int));
        Ok(())
    }

    fn line(&mut self) -> Result<String, Flaw> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return damaged("its pickle ends early");
        };
        let line = String::from_utf8_lossy(&rest[..length]).trim_end_matches('\r').to_owned();
        self.at += length + 1;
        Ok(line)
    }

    fn text<const N: usize>(&mut self) -> Result<(), Flaw> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        let Ok(text) = std::str::from_utf8(self.take(length)?) else { return damaged("a text is not UTF-8") };
        let text = Value::Text(text.into());
        self.push(text);
        Ok(())
    }

    fn bytes_of<const N: usize>(&mut self) -> Result<(), Flaw> {
        let length = usize::try_from(self.number::<N>()?).unwrap_or(usize::MAX);
        self.skip(length)
    }

    fn push(&mut self, value: Value) {
        self.stack.push(value);
    }

    fn pop(&mut self) -> Result<Value, Flaw> {
        self.stack.pop().map_or_else(|| damaged("its pickle takes more than it put down"), Ok)
    }

    fn tuple(&mut self, count: usize) -> Result<(), Flaw> {
        let Some(from) = self.stack.len().checked_sub(count) else {
            return damaged("its pickle takes more than it put down");
        };
        let items = self.stack.split_off(from);
        self.push(Value::Tuple(Rc::new(items)));
        Ok(())
    }

    fn to_mark(&mut self) -> Result<Vec<Value>, Flaw> {
        let Some(mark) = self.stack.iter().rposition(|value| matches!(value, Value::Mark)) else {
            return damaged("its pickle lacks a mark");
        };
        let items = self.stack.split_off(mark + 1);
        self.stack.pop();
        Ok(items)
    }

    fn append(&mut self, items: Vec<Value>) -> Result<(), Flaw> {
        match self.stack.last() {
            Some(Value::List(list)) => list.borrow_mut().extend(items),
            _ => return damaged("its pickle appends to no list"),
        }
        Ok(())
    }

    fn set_items(&mut self, items: Vec<Value>) -> Result<(), Flaw> {
        let Some(Value::Dict(entries)) = self.stack.last() else { return damaged("its pickle sets items of no dictionary") };
        let mut items = items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            entries.borrow_mut().push((key, value));
        }
        Ok(())
    }

    fn put(&mut self, bytes: usize) -> Result<(), Flaw> {
        let place = if bytes == 1 { self.number::<1>()? } else { self.number::<4>()? };
        self.remember(u32::try_from(place).unwrap_or(u32::MAX))
    }

    fn remember(&mut self, place: u32) -> Result<(), Flaw> {
        let Some(value) = self.stack.last() else { return damaged("its pickle remembers nothing") };
        self.memo.insert(place, value.clone());
        Ok(())
    }

    fn get(&mut self, bytes: usize) -> Result<(), Flaw> {
        let place = if bytes == 1 { self.number::<1>()? } else { self.number::<4>()? };
        let known = u32::try_from(place).ok().and_then(|place| self.memo.get(&place).cloned());
        let Some(value) = known else { return damaged("its pickle recalls what it never remembered") };
        self.push(value);
        Ok(())
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), Flaw> {
        match global(module, name) {
            Some(known) => self.push(Value::Global(known)),
            None => return Err(Flaw::Global(format!("{module}.{name}"))),
        }
        Ok(())
    }

    /// `('storage', kind, key, device, count)`
    fn storage(&mut self) -> Result<(), Flaw> {
        let Value::Tuple(items) = self.pop()? else { return damaged("a storage is no tuple") };
        match items.as_slice() {
            [Value::Text(what), Value::Global(Global::StorageKind(kind)), Value::Text(key), ..]
                if &**what == "storage" && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') =>
            {
                self.push(Value::Storage(Rc::new(Storage { kind: *kind, key: key.to_string() })));
                Ok(())
            }
            _ => damaged("a storage is described in an unknown way"),
        }
    }

    fn call(&mut self) -> Result<(), Flaw> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(arguments), Value::Global(function)) = (arguments, function) else {
            return damaged("its pickle calls what is no function");
        };
        let value = match (function, arguments.as_slice()) {
            (Global::OrderedDict, _) => Value::Dict(Rc::default()),
            (Global::Ignored | Global::StorageKind(_), _) => Value::Plain,
            (Global::RebuildParameter, [tensor @ Value::Tensor(_), ..]) => tensor.clone(),
            (Global::RebuildTensor, [Value::Storage(storage), offset, shape, stride, ..]) => {
                let one = |value: &Value| match value {
                    Value::Int(number) => usize::try_from(*number).ok(),
                    _ => None,
                };
                let many = |value: &Value| match value {
                    Value::Tuple(items) => items.iter().map(one).collect::<Option<Vec<_>>>(),
                    _ => None,
                };
                let (Some(offset), Some(shape), Some(stride)) = (one(offset), many(shape), many(stride)) else {
                    return damaged("a tensor's shape is not of whole numbers");
                };
                let storage = storage.as_ref().clone();
                Value::Tensor(Rc::new(TensorPlan { storage, offset, shape, stride }))
            }
            _ => return damaged("a tensor is described in an unknown way"),
        };
        self.push(value);
        Ok(())
    }
}
