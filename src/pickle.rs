//! Reads a Python pickle without running anything: protocols 0 to 5, of which the objects that hold weights, and where they
//! are asked for bytes and NumPy's arrays, become values, and all others an [`Object::Opaque`] that only has the name of its class.
//!
//! A pickle is a program for a stack machine. Its only dangerous instructions call a class or a function by name; here
//! they call the few of [`Machine::call`], which put tensors together, and give an opaque value otherwise. Objects are
//! kept in a list and refer to each other by number, texts are shared, and all steps are counted, so that a pickle that
//! contains itself, or a large object a million times, costs no more than one of as many small objects.

mod calls;

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

use safetensors::Dtype;

/// The number of an object.
pub(crate) type Id = usize;

/// What a pickle has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    None,
    Bool(bool),
    Int(i64),
    /// A string, as a dictionary's keys are.
    Text(Rc<str>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A class or a function.
    Name(Rc<str>),
    /// The bytes of tensors.
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
    /// Bytes, where they are kept.
    Bytes(Rc<[u8]>),
    /// An array of NumPy, where bytes are kept.
    Array(Rc<Array>),
    /// Anything else: numbers, bytes, objects of unknown classes, by what they are.
    Opaque(Rc<str>),
}

/// A piece of memory that tensors are views of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Storage {
    /// Its name in the file.
    pub key: Rc<str>,
    /// None for types that no weights have.
    pub dtype: Option<Dtype>,
    /// The name of its type.
    pub kind: Rc<str>,
    /// Elements.
    pub len: u64,
    /// The first element of a view of another storage.
    pub first: u64,
}

/// A view of a storage.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub storage: Rc<Storage>,
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<u64>,
}

/// An array of NumPy, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Array {
    pub shape: Vec<usize>,
    /// Its type, as `u1`; numbers of several bytes are taken as little-endian.
    pub dtype: Rc<str>,
    pub bytes: Rc<[u8]>,
}

impl Storage {
    /// Whether its elements are floating-point numbers.
    pub fn is_float(&self) -> bool {
        matches!(self.dtype, Some(Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16))
    }
}

/// The most steps that count, as each object does: far beyond those of training checkpoints, in memory of 1 GiB.
const MOST_STEPS: usize = 1 << 25;
/// How often the bytes that were read may be copied, on average.
const MOST_COPIES: u64 = 16;

/// The objects of a pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    objects: Vec<Object>,
    root: Id,
}

impl Pickle {
    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        &self.objects[id]
    }

    /// The value under a key of what was pickled, where that is a dictionary; the key may be text or bytes.
    pub fn under(&self, key: &str) -> Option<&Object> {
        let Object::Dict(dict) = self.root() else { return None };
        let is_key = |id: Id| match self.get(id) {
            Object::Text(text) => &**text == key,
            Object::Bytes(bytes) => **bytes == *key.as_bytes(),
            _ => false,
        };
        dict.iter().find(|(at, _)| is_key(*at)).map(|&(_, value)| self.get(value))
    }

    /// The storages, each as often as it is met.
    pub fn storages(&self) -> impl Iterator<Item = &Storage> {
        self.objects.iter().filter_map(|object| match object {
            Object::Storage(storage) => Some(&**storage),
            _ => None,
        })
    }

    /// What was pickled.
    pub fn root(&self) -> &Object {
        self.get(self.root)
    }
}

/// Reads one pickle, up to its end. Bytes and arrays are opaque.
///
/// # Errors
/// Where it is damaged or ends too early, in words.
pub(crate) fn read(from: &mut impl Read) -> Result<Pickle, String> {
    read_as(from, false)
}

/// [`read`] with the bytes and the arrays.
///
/// # Errors
/// As there.
pub(crate) fn read_with_bytes(from: &mut impl Read) -> Result<Pickle, String> {
    read_as(from, true)
}

fn read_as(from: &mut impl Read, bytes_are_kept: bool) -> Result<Pickle, String> {
    let (objects, stack, marks, memo) = (vec![], vec![], vec![], HashMap::new());
    let mut machine =
        Machine { from, bytes_are_kept, at: 0, objects, stack, marks, memo, steps: 0, copied: 0 };
    loop {
        let code = machine.byte()?;
        if code == b'.' {
            let root = machine.pop()?;
            return Ok(Pickle { objects: machine.objects, root });
        }
        machine.step(code)?;
    }
}

/// The stack machine.
struct Machine<'a, R> {
    from: &'a mut R,
    bytes_are_kept: bool,
    at: u64,
    objects: Vec<Object>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    steps: usize,
    /// Bytes of texts that were copied.
    copied: u64,
}

type Done<T = ()> = Result<T, String>;

impl<R: Read> Machine<'_, R> {
    fn damaged(&self, what: &str) -> String {
        format!("its pickle is damaged: {what} at byte {}", self.at)
    }

    fn bytes(&mut self, len: u64) -> Done<Vec<u8>> {
        let mut bytes = vec![];
        // Reads as far as there are bytes, so that a length that is not true reserves no memory.
        let read = self.from.by_ref().take(len).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        self.at += read as u64;
        if (read as u64) < len {
            return Err("its pickle ends too early (truncated?)".into());
        }
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Done<[u8; N]> {
        let mut bytes = [0; N];
        self.from.read_exact(&mut bytes).map_err(|_| "its pickle ends too early (truncated?)".to_string())?;
        self.at += N as u64;
        Ok(bytes)
    }

    fn byte(&mut self) -> Done<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// A length of 1, 4 or 8 bytes.
    fn length(&mut self, size: u32) -> Done<u64> {
        Ok(match size {
            1 => u64::from(self.byte()?),
            4 => u64::from(u32::from_le_bytes(self.array()?)),
            _ => u64::from_le_bytes(self.array()?),
        })
    }

    fn line(&mut self) -> Done<String> {
        let mut line = vec![];
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() > 1 << 16 => return Err(self.damaged("a line of text without an end")),
                byte => line.push(byte),
            }
        }
        String::from_utf8(line).map_err(|_| self.damaged("text that is not UTF-8"))
    }

    fn text(&mut self, size: u32) -> Done {
        let length = self.length(size)?;
        let text =
            String::from_utf8(self.bytes(length)?).map_err(|_| self.damaged("text that is not UTF-8"))?;
        self.push(Object::Text(text.into()))
    }

    /// Bytes, which no weights are read from, so that they may be skipped.
    fn some_bytes(&mut self, size: u32) -> Done {
        let length = self.length(size)?;
        if self.bytes_are_kept {
            let bytes = self.bytes(length)?;
            return self.push(Object::Bytes(bytes.into()));
        }
        let skipped = std::io::copy(&mut self.from.by_ref().take(length), &mut std::io::sink());
        match skipped.map_err(|e| e.to_string())? == length {
            true => self.at += length,
            false => return Err("its pickle ends too early (truncated?)".into()),
        }
        self.opaque("bytes")
    }

    fn count(&mut self, steps: usize) -> Done {
        self.steps += steps;
        match self.steps <= MOST_STEPS {
            true => Ok(()),
            false => {
                Err(format!("its pickle has more than {MOST_STEPS} objects, more than a checkpoint has"))
            }
        }
    }

    /// Counts bytes that are copied: what was read may be again and again, but not without end.
    fn copies(&mut self, bytes: usize) -> Done {
        self.copied += bytes as u64;
        match self.copied <= MOST_COPIES * self.at + (1 << 16) {
            true => Ok(()),
            false => Err(self.damaged("texts that are copied more often than a checkpoint does it")),
        }
    }

    fn push(&mut self, object: Object) -> Done {
        self.count(1)?;
        self.objects.push(object);
        self.stack.push(self.objects.len() - 1);
        Ok(())
    }

    fn opaque(&mut self, what: &str) -> Done {
        self.push(Object::Opaque(what.into()))
    }

    fn pop(&mut self) -> Done<Id> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.len() > floor {
            true => self.stack.pop().ok_or_else(|| self.damaged("an empty stack")),
            false => Err(self.damaged("an empty stack")),
        }
    }

    /// The name of what is called, from the stack.
    fn class(&mut self) -> Done<Rc<str>> {
        let id = self.pop()?;
        Ok(match &self.objects[id] {
            Object::Name(name) | Object::Opaque(name) => name.clone(),
            _ => "an object of no class".into(),
        })
    }

    /// What stands above the last mark.
    fn above(&mut self) -> Done<Vec<Id>> {
        let mark = self.marks.pop().ok_or_else(|| self.damaged("no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Done<Id> {
        self.stack.last().copied().ok_or_else(|| self.damaged("an empty stack"))
    }

    fn put(&mut self, slot: u64) -> Done {
        let top = self.top()?;
        self.count(1)?;
        self.memo.insert(slot, top);
        Ok(())
    }

    fn get(&mut self, slot: u64) -> Done {
        let id = self.memo.get(&slot).copied().ok_or_else(|| self.damaged("a reference to nothing"))?;
        self.count(1)?;
        self.stack.push(id);
        Ok(())
    }

    fn slot(&mut self) -> Done<u64> {
        let line = self.line()?;
        line.parse().map_err(|_| self.damaged("a reference that is no number"))
    }

    /// Adds items to the list on top; to an opaque value nothing can be added that matters.
    fn append(&mut self, items: Vec<Id>) -> Done {
        let top = self.top()?;
        match &mut self.objects[top] {
            Object::List(list) => list.extend(items),
            Object::Opaque(_) => {}
            _ => return Err(self.damaged("items for what is no list")),
        }
        Ok(())
    }

    /// Adds keys and values to the dictionary on top.
    fn set(&mut self, items: &[Id]) -> Done {
        let top = self.top()?;
        let pairs = items.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        match &mut self.objects[top] {
            Object::Dict(dict) if items.len().is_multiple_of(2) => dict.extend(pairs),
            Object::Opaque(_) => {}
            _ => return Err(self.damaged("items for what is no dictionary")),
        }
        Ok(())
    }

    fn dict(&mut self, items: &[Id]) -> Done {
        self.push(Object::Dict(vec![]))?;
        self.set(items)
    }

    fn name(&mut self, module: &str, name: &str) -> Done {
        self.push(Object::Name(format!("{module}.{name}").into()))
    }

    /// One instruction.
    fn step(&mut self, code: u8) -> Done {
        match code {
            // The protocol, and the length of what follows, which readers may ignore.
            0x80 => match self.byte()? {
                0..=5 => Ok(()),
                other => Err(format!("its pickle has protocol {other}; 0 to 5 are known here")),
            },
            0x95 => self.array::<8>().map(|_| ()),
            b'(' => {
                self.marks.push(self.stack.len());
                self.count(1)
            }
            b'0' => self.pop().map(|_| ()),
            b'1' => self.above().map(|_| ()),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
                self.count(1)
            }
            b'p' => self.slot().and_then(|slot| self.put(slot)),
            b'q' => self.length(1).and_then(|slot| self.put(slot)),
            b'r' => self.length(4).and_then(|slot| self.put(slot)),
            0x94 => self.put(self.memo.len() as u64),
            b'g' => self.slot().and_then(|slot| self.get(slot)),
            b'h' => self.length(1).and_then(|slot| self.get(slot)),
            b'j' => self.length(4).and_then(|slot| self.get(slot)),
            b'N' | 0x88 | 0x89 | b'I' | b'K' | b'M' | b'J' | b'L' | 0x8a | 0x8b | b'F' | b'G' => {
                self.number(code)
            }
            b'X' => self.text(4),
            0x8c => self.text(1),
            0x8d => self.text(8),
            b'V' | b'S' => {
                let line = self.line()?;
                self.push(Object::Text(line.into()))
            }
            b'U' | b'T' => self.old_text(code),
            b'C' => self.some_bytes(1),
            b'B' => self.some_bytes(4),
            0x8e | 0x96 => self.some_bytes(8),
            _ => self.container(code),
        }
    }

    /// None, a truth value, or a number; of those only whole ones are kept.
    fn number(&mut self, code: u8) -> Done {
        let object = match code {
            b'N' => Object::None,
            0x88 => Object::Bool(true),
            0x89 => Object::Bool(false),
            b'K' => Object::Int(i64::from(self.byte()?)),
            b'M' => Object::Int(i64::from(u16::from_le_bytes(self.array()?))),
            b'J' => Object::Int(i64::from(i32::from_le_bytes(self.array()?))),
            b'G' => {
                self.array::<8>()?;
                Object::Opaque("a number".into())
            }
            0x8a | 0x8b => {
                let length = self.length(if code == 0x8a { 1 } else { 4 })?;
                whole(&self.bytes(length)?)
            }
            _ => match self.line()?.trim_end_matches('L') {
                "00" => Object::Bool(false),
                "01" => Object::Bool(true),
                text => text.parse().map_or_else(|_| Object::Opaque("a number".into()), Object::Int),
            },
        };
        self.push(object)
    }

    /// A string of Python 2, of any encoding.
    fn old_text(&mut self, code: u8) -> Done {
        let length = self.length(if code == b'U' { 1 } else { 4 })?;
        let text = self.bytes(length)?;
        self.push(match String::from_utf8(text) {
            Ok(text) => Object::Text(text.into()),
            Err(bytes) if self.bytes_are_kept => Object::Bytes(bytes.into_bytes().into()),
            Err(_) => Object::Opaque("bytes".into()),
        })
    }

    /// Containers, and what is called.
    fn container(&mut self, code: u8) -> Done {
        match code {
            b']' => self.push(Object::List(vec![])),
            b'}' => self.push(Object::Dict(vec![])),
            b')' => self.push(Object::Tuple(vec![])),
            0x8f => self.opaque("a set"),
            b'l' | b't' | b'd' | 0x90 | 0x91 | b'e' | b'u' => self.collected(code),
            0x85..=0x87 => {
                let mut items: Vec<Id> = (0x85..=code).map(|_| self.pop()).collect::<Done<_>>()?;
                items.reverse();
                self.push(Object::Tuple(items))
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])
            }
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.name(&module, &name)
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (&self.objects[name], &self.objects[module]) {
                    (Object::Text(name), Object::Text(module)) => {
                        let (name, module) = (name.clone(), module.clone());
                        self.copies(name.len() + module.len())?;
                        self.name(&module, &name)
                    }
                    _ => Err(self.damaged("a class without a name")),
                }
            }
            _ => self.called(code),
        }
    }

    /// What goes by a mark.
    fn collected(&mut self, code: u8) -> Done {
        let items = self.above()?;
        match code {
            b'l' => self.push(Object::List(items)),
            b't' => self.push(Object::Tuple(items)),
            b'd' => self.dict(&items),
            b'e' => self.append(items),
            b'u' => self.set(&items),
            0x91 => self.opaque("a set"),
            _ => Ok(()), // into a set
        }
    }
}

/// A little-endian number of any length in two's complement.
fn whole(bytes: &[u8]) -> Object {
    if bytes.len() > 8 {
        return Object::Opaque("a number".into());
    }
    let negative = bytes.last().is_some_and(|&byte| byte >= 0x80);
    let mut all = if negative { [0xff; 8] } else { [0; 8] };
    all[..bytes.len()].copy_from_slice(bytes);
    Object::Int(i64::from_le_bytes(all))
}
