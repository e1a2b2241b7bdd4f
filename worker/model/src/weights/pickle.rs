//! A pickle reader that builds values and never runs anything.
//!
//! Pickle (Python's PEP 307 and 3154) is a program for a stack machine, some of whose instructions call functions of
//! the reader's process. Here a global is a word on the stack, only those of tensors are allowed, and calling one of
//! them builds a description. Memory is linear in the pickle's length, and nothing recurses.

mod program;
mod value;

use std::collections::BTreeMap;

use program::{Program, damaged, op};
use value::{Global, Storage};
pub(super) use value::{Place, TensorPlan, Value, Values};

/// Values at most: a tensor takes about twenty, a big model's checkpoint a few hundred thousand.
const MOST_VALUES: usize = 2_000_000;
/// Tensors at most; they are the biggest values, and the memo makes one in five bytes.
const MOST_TENSORS: usize = 100_000;

/// Why a pickle is not read.
#[derive(Debug)]
pub(super) enum Flaw {
    /// It names a global that is no tensor's.
    Global(String),
    /// It is damaged or uses what weights do not need.
    Damaged(String),
}

/// The values of a pickle.
pub(super) fn read(bytes: &[u8]) -> Result<Values, Flaw> {
    let mut machine = Machine::new(bytes);
    let root = machine.run()?;
    Ok(Values {
        all: machine.values,
        root,
    })
}

/// The first global that is not allowed in up to `most` pickles one after the other.
pub(super) fn wanted_global(mut bytes: &[u8], most: usize) -> Option<String> {
    for _ in 0..most {
        let mut machine = Machine::new(bytes);
        match machine.run() {
            Ok(_) => bytes = machine.program.rest,
            Err(Flaw::Global(global)) => return Some(global),
            Err(Flaw::Damaged(_)) => return None,
        }
    }
    None
}

struct Machine<'a> {
    program: Program<'a>,
    values: Vec<Value>,
    stack: Vec<Place>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: BTreeMap<u64, Place>,
    tensors: usize,
}

/// The name of a global in a message: short, and without a terminal's control characters.
fn full_name(module: &str, name: &str) -> String {
    let escaped = module.chars().chain(['.']).chain(name.chars());
    escaped.take(120).flat_map(char::escape_debug).collect()
}

type Step = Result<(), Flaw>;

impl<'a> Machine<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            program: Program { rest: bytes },
            values: Vec::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: BTreeMap::new(),
            tensors: 0,
        }
    }

    fn run(&mut self) -> Result<Place, Flaw> {
        loop {
            let instruction = self.program.take(1)?[0];
            if instruction == op::STOP {
                return self.pop();
            }
            self.step(instruction)?;
        }
    }

    fn step(&mut self, instruction: u8) -> Step {
        match instruction {
            op::PROTO => self.program.take(1).map(drop),
            op::FRAME => self.program.take(8).map(drop),
            op::MARK => self.mark(),
            op::POP => self.pop().map(drop),
            op::POP_MARK => self.since_mark().map(drop),
            op::EMPTY_TUPLE => self.push(Value::Tuple(Vec::new())),
            op::EMPTY_LIST => self.push(Value::List(Vec::new())),
            op::EMPTY_DICT => self.push(Value::Dict(Vec::new())),
            op::TUPLE1 => self.tuple(1),
            op::TUPLE2 => self.tuple(2),
            op::TUPLE3 => self.tuple(3),
            op::TUPLE => self
                .since_mark()
                .and_then(|items| self.push(Value::Tuple(items))),
            op::LIST => self
                .since_mark()
                .and_then(|items| self.push(Value::List(items))),
            op::DICT => {
                let items = self.since_mark()?;
                self.push(Value::Dict(Vec::new()))?;
                self.set_items(&items)
            }
            op::APPEND => self.pop().and_then(|item| self.append(&[item])),
            op::APPENDS => self.since_mark().and_then(|items| self.append(&items)),
            op::SETITEM => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set_items(&[key, value])
            }
            op::SETITEMS => self.since_mark().and_then(|items| self.set_items(&items)),
            op::PUT => self
                .program
                .line_number()
                .and_then(|place| self.remember(place)),
            op::BINPUT => self
                .program
                .number::<1>()
                .and_then(|place| self.remember(place)),
            op::LONG_BINPUT => self
                .program
                .number::<4>()
                .and_then(|place| self.remember(place)),
            op::MEMOIZE => self.remember(self.memo.len() as u64),
            op::GET => self
                .program
                .line_number()
                .and_then(|place| self.recall(place)),
            op::BINGET => self
                .program
                .number::<1>()
                .and_then(|place| self.recall(place)),
            op::LONG_BINGET => self
                .program
                .number::<4>()
                .and_then(|place| self.recall(place)),
            op::GLOBAL => {
                let (module, name) = (self.program.line()?, self.program.line()?);
                self.global(module, name)
            }
            op::STACK_GLOBAL => self.stack_global(),
            op::BINPERSID => self.storage(),
            op::REDUCE => self.call(),
            // The state of an ordered dictionary or a parameter is its Python attributes, never its contents.
            op::BUILD => self.pop().map(drop),
            op::INST => {
                let (module, name) = (self.program.line()?, self.program.line()?);
                Err(Flaw::Global(full_name(module, name)))
            }
            op::EXT1..=op::EXT4 => Err(Flaw::Global(
                "an entry of Python's extension registry".to_owned(),
            )),
            other => {
                let value = self.program.plain_value(other)?;
                self.push(value)
            }
        }
    }

    // The stack.

    fn push(&mut self, value: Value) -> Step {
        if self.values.len() >= MOST_VALUES {
            return damaged(format!("holds more than {MOST_VALUES} values"));
        }
        self.stack.push(Place(self.values.len() as u32));
        self.values.push(value);
        Ok(())
    }

    fn mark(&mut self) -> Step {
        if self.marks.len() >= MOST_VALUES {
            return damaged(format!("holds more than {MOST_VALUES} marks"));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    fn pop(&mut self) -> Result<Place, Flaw> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.pop() {
            Some(place) if self.stack.len() >= floor => Ok(place),
            _ => damaged("takes more than it put down"),
        }
    }

    fn since_mark(&mut self) -> Result<Vec<Place>, Flaw> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => damaged("lacks a mark"),
        }
    }

    fn top(&mut self) -> Option<&mut Value> {
        self.stack
            .last()
            .map(|place| &mut self.values[place.0 as usize])
    }

    fn value(&self, place: Place) -> &Value {
        &self.values[place.0 as usize]
    }

    fn tuple(&mut self, count: usize) -> Step {
        let mut items = (0..count)
            .map(|_| self.pop())
            .collect::<Result<Vec<_>, _>>()?;
        items.reverse();
        self.push(Value::Tuple(items))
    }

    fn append(&mut self, items: &[Place]) -> Step {
        let Some(Value::List(list)) = self.top() else {
            return damaged("appends to no list");
        };
        list.extend_from_slice(items);
        Ok(())
    }

    fn set_items(&mut self, items: &[Place]) -> Step {
        let (pairs, []) = items.as_chunks::<2>() else {
            return damaged("sets a key without a value");
        };
        let Some(Value::Dict(entries)) = self.top() else {
            return damaged("sets items of no dictionary");
        };
        entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
        Ok(())
    }

    fn remember(&mut self, place: u64) -> Step {
        let Some(&value) = self.stack.last() else {
            return damaged("remembers nothing");
        };
        if self.memo.len() >= MOST_VALUES {
            return damaged(format!("remembers more than {MOST_VALUES} values"));
        }
        self.memo.insert(place, value);
        Ok(())
    }

    /// The stack grows without a new value here, so its height is bounded as well.
    fn recall(&mut self, place: u64) -> Step {
        let Some(&value) = self.memo.get(&place) else {
            return damaged("recalls what it never remembered");
        };
        if self.stack.len() >= MOST_VALUES {
            return damaged(format!("holds more than {MOST_VALUES} values"));
        }
        self.stack.push(value);
        Ok(())
    }

    // What could run, and does not.

    fn global(&mut self, module: &str, name: &str) -> Step {
        match Global::named(module, name) {
            Some(known) => self.push(Value::Global(known)),
            None => Err(Flaw::Global(full_name(module, name))),
        }
    }

    fn stack_global(&mut self) -> Step {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Value::Text(module), Value::Text(name)) = (self.value(module), self.value(name))
        else {
            return damaged("names a global by something that is no text");
        };
        let (module, name) = (module.clone(), name.clone());
        self.global(&module, &name)
    }

    /// `('storage', kind, key, device, elements)`
    fn storage(&mut self) -> Step {
        let described = self.pop()?;
        let Value::Tuple(items) = self.value(described) else {
            return damaged("names a storage by no tuple");
        };
        let items: Vec<&Value> = items.iter().map(|&item| self.value(item)).collect();
        let [
            Value::Text(what),
            Value::Global(Global::StorageOf(kind)),
            Value::Text(key),
            _,
            Value::Int(elements),
        ] = items.as_slice()
        else {
            return damaged("describes a storage in an unknown way");
        };
        let plain =
            !key.is_empty() && key.len() <= 32 && key.bytes().all(|b| b.is_ascii_alphanumeric());
        let (Ok(elements), true, "storage") = (usize::try_from(*elements), plain, what.as_ref())
        else {
            return damaged("describes a storage in an unknown way");
        };
        let storage = Storage {
            kind: *kind,
            key: key.to_string(),
            elements,
        };
        self.push(Value::Storage(Box::new(storage)))
    }

    fn call(&mut self) -> Step {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let (Value::Tuple(places), Value::Global(function)) =
            (self.value(arguments), self.value(function))
        else {
            return damaged("calls what is no function");
        };
        let arguments: Vec<&Value> = places.iter().map(|&place| self.value(place)).collect();
        let value = match (function, arguments.as_slice()) {
            (Global::OrderedDict, []) => Value::Dict(Vec::new()),
            (Global::Ignored, _) => Value::Opaque,
            (Global::RebuildParameter, [Value::Tensor(tensor), ..]) => {
                Value::Tensor(tensor.clone())
            }
            (
                Global::RebuildTensor,
                [
                    Value::Storage(storage),
                    Value::Int(offset),
                    shape,
                    stride,
                    ..,
                ],
            ) => {
                let (Some(shape), Some(stride), 0..) =
                    (self.sides(shape), self.sides(stride), *offset)
                else {
                    return damaged("describes a tensor whose shape is not of whole numbers");
                };
                let (storage, offset) = (storage.as_ref().clone(), *offset);
                Value::Tensor(Box::new(TensorPlan {
                    storage,
                    offset,
                    shape,
                    stride,
                }))
            }
            _ => return damaged("describes a tensor in an unknown way"),
        };
        if matches!(value, Value::Tensor(_)) {
            self.tensors += 1;
        }
        if self.tensors > MOST_TENSORS {
            return damaged(format!("holds more than {MOST_TENSORS} tensors"));
        }
        self.push(value)
    }

    /// At most 16 numbers, none negative.
    fn sides(&self, value: &Value) -> Option<Vec<i64>> {
        let Value::Tuple(items) = value else {
            return None;
        };
        if items.len() > 16 {
            return None;
        }
        let side = |&place: &Place| match self.value(place) {
            Value::Int(side @ 0..) => Some(*side),
            _ => None,
        };
        items.iter().map(side).collect()
    }
}
