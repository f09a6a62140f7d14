//! The operations: values onto the stack and off it, into lists and dictionaries, to memory and back.

use std::collections::HashMap;

use super::super::error::Problem;
use super::super::numbers::Kind;
use super::objects::known;
use super::{Id, Items, LENGTH, Pickled, Value};

/// Values on the stack, at most; PyTorch writes a few thousand at a time.
const STACK: usize = 1 << 20;

#[derive(Default)]
pub(super) struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(super) stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    pub(super) storages: HashMap<String, Kind>,
    pub(super) items: Vec<Items>,
}

impl Machine<'_> {
    /// Runs the pickle at the beginning of `bytes` to its end.
    pub fn run(bytes: &[u8]) -> Result<Pickled, Problem> {
        let mut machine = Machine { bytes, ..Machine::default() };
        let top = machine.execute()?;
        Ok(Pickled { top, length: machine.at, storages: machine.storages, items: machine.items })
    }

    fn execute(&mut self) -> Result<Value, Problem> {
        loop {
            if self.at > LENGTH {
                return Err(Problem::excessive(format!("a pickle of more than {LENGTH} bytes")));
            }
            let op = self.byte()?;
            match op {
                b'.' => return self.pop(),
                0x80 => self.protocol()?,                                 // PROTO
                0x95 => drop(self.take(8)?),                              // FRAME
                b'(' => self.marks.push(self.stack.len()),                // MARK
                b'0' => drop(self.pop()?),                                // POP
                b'1' => drop(self.since_mark()?),                         // POP_MARK
                b'2' => self.duplicate()?,                                // DUP
                b'N' => self.push(Value::None)?,                          // NONE
                0x88 | 0x89 => self.push(Value::Bool(op == 0x88))?,       // NEWTRUE, NEWFALSE
                b'K' => self.integer(1)?,                                 // BININT1
                b'M' => self.integer(2)?,                                 // BININT2
                b'J' => self.signed()?,                                   // BININT
                0x8a => self.long()?,                                     // LONG1
                b'G' => self.opaque_bytes(8)?,                            // BINFLOAT
                b'X' => self.text(4)?,                                    // BINUNICODE
                0x8c => self.text(1)?,                                    // SHORT_BINUNICODE
                b'U' => self.text(1)?,                                    // SHORT_BINSTRING, Python 2
                b'T' => self.text(4)?,                                    // BINSTRING, Python 2
                b'C' => self.counted_bytes(1)?,                           // SHORT_BINBYTES
                b'B' => self.counted_bytes(4)?,                           // BINBYTES
                b']' => self.sequence(Value::List, Vec::new())?,          // EMPTY_LIST
                b')' => self.sequence(Value::Tuple, Vec::new())?,         // EMPTY_TUPLE
                b'l' => self.marked(Value::List)?,                        // LIST
                b't' => self.marked(Value::Tuple)?,                       // TUPLE
                0x85..=0x87 => self.small_tuple(usize::from(op - 0x84))?, // TUPLE1, TUPLE2, TUPLE3
                b'}' => self.dict()?,                                     // EMPTY_DICT
                b'a' => self.append()?,                                   // APPEND
                b'e' => self.appends()?,                                  // APPENDS
                b's' => self.set_item()?,                                 // SETITEM
                b'u' => self.set_items()?,                                // SETITEMS
                b'q' => self.remember(1)?,                                // BINPUT
                b'r' => self.remember(4)?,                                // LONG_BINPUT
                0x94 => self.memoize()?,                                  // MEMOIZE
                b'h' => self.recall(1)?,                                  // BINGET
                b'j' => self.recall(4)?,                                  // LONG_BINGET
                b'c' => self.global()?,                                   // GLOBAL
                0x93 => self.stack_global()?,                             // STACK_GLOBAL
                b'Q' => self.persistent()?,                               // BINPERSID
                b'R' => self.reduce()?,                                   // REDUCE
                0x81 => self.reduce()?, // NEWOBJ: class and arguments likewise
                b'b' => self.build()?,  // BUILD
                other => {
                    let what = format!(
                        "operation 0x{other:02x} at byte {} is none that PyTorch writes",
                        self.at - 1
                    );
                    return Err(Problem::damaged(what));
                }
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Problem> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&[u8], Problem> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end =
            end.ok_or_else(|| Problem::damaged(format!("its pickle ends at byte {}", self.bytes.len())))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// An unsigned number of up to 4 bytes, little-endian as all of pickle.
    fn unsigned(&mut self, width: usize) -> Result<u32, Problem> {
        Ok(self.take(width)?.iter().rev().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn line(&mut self) -> Result<String, Problem> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().take(256).position(|byte| *byte == b'\n');
        let length = length.ok_or_else(|| Problem::damaged("a name in its pickle does not end"))?;
        let line = String::from_utf8_lossy(&rest[..length]).into_owned();
        self.at += length + 1;
        Ok(line)
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), Problem> {
        if self.stack.len() >= STACK {
            return Err(Problem::excessive(format!("{STACK} values at once")));
        }
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Value, Problem> {
        // Values below a mark are not to be had before the mark is gone.
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err(self.misplaced());
        }
        self.stack.pop().ok_or_else(|| self.misplaced())
    }

    fn since_mark(&mut self) -> Result<Vec<Value>, Problem> {
        let mark = self.marks.pop().ok_or_else(|| self.misplaced())?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    pub(super) fn misplaced(&self) -> Problem {
        Problem::damaged(format!("an operation of its pickle before byte {} lacks its values", self.at))
    }

    fn protocol(&mut self) -> Result<(), Problem> {
        match self.byte()? {
            0..=5 => Ok(()),
            other => Err(Problem::damaged(format!("pickle protocol {other} is not known"))),
        }
    }

    fn duplicate(&mut self) -> Result<(), Problem> {
        let top = self.stack.last().cloned().ok_or_else(|| self.misplaced())?;
        self.push(top)
    }

    fn integer(&mut self, width: usize) -> Result<(), Problem> {
        let number = self.unsigned(width)?;
        self.push(Value::Int(i64::from(number)))
    }

    fn signed(&mut self) -> Result<(), Problem> {
        let number = self.unsigned(4)?.cast_signed();
        self.push(Value::Int(i64::from(number)))
    }

    /// Beyond 64 bits it is no size of anything.
    fn long(&mut self) -> Result<(), Problem> {
        let width = usize::from(self.byte()?);
        let bytes = self.take(width)?;
        if bytes.len() > 8 {
            return self.push(Value::Opaque);
        }
        let filler = if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 };
        let mut all = [filler; 8];
        all[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(all)))
    }

    fn opaque_bytes(&mut self, count: usize) -> Result<(), Problem> {
        self.take(count)?;
        self.push(Value::Opaque)
    }

    fn counted_bytes(&mut self, width: usize) -> Result<(), Problem> {
        let count = self.unsigned(width)? as usize;
        self.opaque_bytes(count)
    }

    fn text(&mut self, width: usize) -> Result<(), Problem> {
        let count = self.unsigned(width)? as usize;
        let text = String::from_utf8_lossy(self.take(count)?).into();
        self.push(Value::Text(text))
    }

    fn sequence(&mut self, make: fn(Id) -> Value, values: Vec<Value>) -> Result<(), Problem> {
        self.items.push(Items::Sequence(values));
        self.push(make(self.items.len() - 1))
    }

    fn marked(&mut self, make: fn(Id) -> Value) -> Result<(), Problem> {
        let values = self.since_mark()?;
        self.sequence(make, values)
    }

    fn small_tuple(&mut self, count: usize) -> Result<(), Problem> {
        let mut values = Vec::with_capacity(count);
        for _ in 0..count {
            values.push(self.pop()?);
        }
        values.reverse();
        self.sequence(Value::Tuple, values)
    }

    pub(super) fn dict(&mut self) -> Result<(), Problem> {
        self.items.push(Items::Pairs(Vec::new()));
        self.push(Value::Dict(self.items.len() - 1))
    }

    fn append(&mut self) -> Result<(), Problem> {
        let value = self.pop()?;
        self.extend(vec![value])
    }

    fn appends(&mut self) -> Result<(), Problem> {
        let values = self.since_mark()?;
        self.extend(values)
    }

    fn extend(&mut self, values: Vec<Value>) -> Result<(), Problem> {
        match self.stack.last() {
            Some(Value::List(id)) => match &mut self.items[*id] {
                Items::Sequence(list) => list.extend(values),
                Items::Pairs(_) => return Err(self.misplaced()),
            },
            Some(Value::Opaque) => {}
            _ => return Err(self.misplaced()),
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), Problem> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.set(vec![key, value])
    }

    fn set_items(&mut self) -> Result<(), Problem> {
        let values = self.since_mark()?;
        self.set(values)
    }

    /// Keys and values in turn.
    fn set(&mut self, values: Vec<Value>) -> Result<(), Problem> {
        if !values.len().is_multiple_of(2) {
            return Err(self.misplaced());
        }
        let mut values = values.into_iter();
        match self.stack.last() {
            Some(Value::Dict(id)) => match &mut self.items[*id] {
                Items::Pairs(pairs) => {
                    while let (Some(key), Some(value)) = (values.next(), values.next()) {
                        pairs.push((key, value));
                    }
                }
                Items::Sequence(_) => return Err(self.misplaced()),
            },
            Some(Value::Opaque) => {}
            _ => return Err(self.misplaced()),
        }
        Ok(())
    }

    fn remember(&mut self, width: usize) -> Result<(), Problem> {
        let place = self.unsigned(width)?;
        let top = self.stack.last().cloned().ok_or_else(|| self.misplaced())?;
        self.memo.insert(place, top);
        Ok(())
    }

    fn memoize(&mut self) -> Result<(), Problem> {
        let top = self.stack.last().cloned().ok_or_else(|| self.misplaced())?;
        self.memo.insert(self.memo.len() as u32, top);
        Ok(())
    }

    fn recall(&mut self, width: usize) -> Result<(), Problem> {
        let place = self.unsigned(width)?;
        let value = self.memo.get(&place).cloned().ok_or_else(|| self.misplaced())?;
        self.push(value)
    }

    fn global(&mut self) -> Result<(), Problem> {
        let (module, name) = (self.line()?, self.line()?);
        self.push(Value::Global(known(&module, &name)?))
    }

    fn stack_global(&mut self) -> Result<(), Problem> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => self.push(Value::Global(known(&module, &name)?)),
            _ => Err(self.misplaced()),
        }
    }
}
