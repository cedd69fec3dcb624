//! What a pickle calls by name, and what it has outside of itself: a few functions that put tensors together, and
//! storages. Anything else becomes an opaque value.

use std::io::Read;
use std::rc::Rc;

use safetensors::Dtype;

use super::{Array, Done, Id, Machine, Object, Storage, Tensor};

const PARAMETER: &str = "torch.nn.parameter.Parameter";
/// What an opaque type of an array begins with.
const DTYPE: &str = "numpy.dtype ";
/// The most axes that a tensor has.
const MOST_AXES: usize = 64;

impl<R: Read> Machine<'_, R> {
    /// What names a class and would make an object of it.
    pub(super) fn called(&mut self, code: u8) -> Done {
        match code {
            b'R' | 0x81 => {
                let (arguments, class) = (self.pop()?, self.class()?);
                self.call(class, arguments)
            }
            0x92 => {
                let (_, arguments, class) = (self.pop()?, self.pop()?, self.class()?);
                self.call(class, arguments)
            }
            b'i' => {
                self.above()?;
                let (module, name) = (self.line()?, self.line()?);
                self.opaque(&format!("{module}.{name}"))
            }
            b'o' => match self.above()?.first().map(|&id| &self.objects[id]) {
                Some(Object::Name(name)) => {
                    let name = name.clone();
                    self.push(Object::Opaque(name))
                }
                _ => self.opaque("an object of no class"),
            },
            b'b' => self.build(),
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(storage)
            }
            b'P' => {
                self.line()?;
                self.opaque("an object that is kept elsewhere")
            }
            other => Err(self.damaged(&format!("the unknown instruction {other:#04x}"))),
        }
    }

    /// Sets the state of an object. Only that of a parameter as early versions of PyTorch wrote it matters: its first
    /// part is the tensor.
    fn build(&mut self) -> Done {
        let (state, top) = (self.pop()?, self.top()?);
        if let (Object::Opaque(class), Object::Tuple(parts)) = (&self.objects[top], &self.objects[state])
            && &**class == PARAMETER
            && let Some(Object::Tensor(tensor)) = parts.first().map(|&id| &self.objects[id])
        {
            self.objects[top] = Object::Tensor(tensor.clone());
        }
        if let Object::Opaque(class) = &self.objects[top]
            && class.ends_with("multiarray._reconstruct")
            && self.part(state, 3) == Some(&Object::Bool(false))
            && let Some(array) = self.array_of(state, [4, 2, 1])?
        {
            self.objects[top] = array;
        }
        Ok(())
    }

    /// A part of a tuple.
    fn part(&self, tuple: Id, i: usize) -> Option<&Object> {
        match &self.objects[tuple] {
            Object::Tuple(parts) => parts.get(i).map(|&id| &self.objects[id]),
            _ => None,
        }
    }

    /// A whole number from 0 that is part of a tuple.
    fn count_at(&self, tuple: Id, i: usize) -> Option<u64> {
        match self.part(tuple, i) {
            Some(Object::Int(n)) => u64::try_from(*n).ok(),
            _ => None,
        }
    }

    /// The storage that a reference to what lies outside the pickle means.
    fn storage(&self, id: Id) -> Done<Object> {
        let key: Option<Rc<str>> = match self.part(id, 2) {
            Some(Object::Text(key)) => Some(key.clone()),
            Some(Object::Int(key)) => Some(key.to_string().into()),
            _ => None,
        };
        let word = match self.part(id, 0) {
            Some(Object::Text(word)) => &**word,
            _ => "",
        };
        // A class of a model, with its source.
        if word == "module" {
            return Ok(match self.part(id, 1) {
                Some(class @ (Object::Name(_) | Object::Opaque(_))) => class.clone(),
                _ => Object::None,
            });
        }
        let (Some(Object::Name(kind)), Some(key), Some(len), "storage") =
            (self.part(id, 1), key, self.count_at(id, 4), word)
        else {
            return Err(self.damaged("a reference to what lies outside that is no storage's"));
        };
        let mut storage = Storage { key, dtype: dtype(kind), kind: kind.clone(), len, first: 0 };
        // Early versions write a view of another storage as that storage and a range.
        if let Some(Object::Tuple(view)) = self.part(id, 5) {
            let number = |i: usize| match view.get(i).map(|&id| &self.objects[id]) {
                Some(Object::Int(n)) => u64::try_from(*n).ok(),
                _ => None,
            };
            let range = number(1).zip(number(2));
            (storage.first, storage.len) = range.ok_or_else(|| self.damaged("a view without a range"))?;
        }
        Ok(Object::Storage(storage.into()))
    }

    /// Calls one of the few functions that are known, by name; none runs anything.
    fn call(&mut self, class: Rc<str>, arguments: Id) -> Done {
        match (&*class, self.part(arguments, 0)) {
            ("collections.OrderedDict", None) => self.push(Object::Dict(vec![])),
            ("collections.OrderedDict", Some(Object::List(pairs))) => {
                let steps = pairs.len();
                let pairs: Option<Vec<(Id, Id)>> = pairs.iter().map(|&id| self.pair(id)).collect();
                self.count(steps)?;
                self.push(Object::Dict(pairs.ok_or_else(|| self.damaged("a dictionary of no pairs"))?))
            }
            (
                "collections.defaultdict" | "builtins.dict" | "__builtin__.dict",
                None | Some(Object::Name(_)),
            ) => self.push(Object::Dict(vec![])),
            (
                "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor",
                Some(Object::Storage(storage)),
            ) => {
                let tensor = self.view(storage.clone(), arguments);
                let tensor = tensor.ok_or_else(|| self.damaged("a tensor that has not its form"))?;
                self.push(Object::Tensor(tensor.into()))
            }
            (
                "torch._utils._rebuild_parameter" | "torch._utils._rebuild_parameter_with_state" | PARAMETER,
                Some(Object::Tensor(tensor)),
            ) => {
                let tensor = Object::Tensor(tensor.clone());
                self.push(tensor)
            }
            ("_codecs.encode", Some(Object::Text(text))) if self.bytes_are_kept => {
                let text = text.clone();
                self.copies(text.len())?;
                let bytes: Option<Vec<u8>> = text.chars().map(|c| u8::try_from(c).ok()).collect();
                let bytes = bytes.ok_or_else(|| self.damaged("bytes that are none"))?;
                self.push(Object::Bytes(bytes.into()))
            }
            ("numpy.dtype", Some(Object::Text(name))) => {
                let name = format!("{DTYPE}{name}");
                self.copies(name.len())?;
                self.opaque(&name)
            }
            (name, Some(Object::Bytes(_))) if name.ends_with("numeric._frombuffer") => {
                let array = self.array_of(arguments, [0, 1, 2])?;
                self.push(array.unwrap_or(Object::Opaque(class)))
            }
            _ => self.push(Object::Opaque(class)),
        }
    }

    /// The array of which parts of a tuple are the bytes, the type and the shape.
    fn array_of(&mut self, tuple: Id, [bytes, dtype, shape]: [usize; 3]) -> Done<Option<Object>> {
        let found = self.array_in(tuple, [bytes, dtype, shape]);
        if let Some(Object::Array(array)) = &found {
            // Bytes are shared; those of a text are copied.
            let text = matches!(self.part(tuple, bytes), Some(Object::Text(_)));
            let bytes = if text { array.bytes.len() } else { 0 };
            self.copies(bytes + array.dtype.len() + size_of_val(&array.shape[..]))?;
        }
        Ok(found)
    }

    fn array_in(&self, tuple: Id, [bytes, dtype, shape]: [usize; 3]) -> Option<Object> {
        let bytes: Rc<[u8]> = match self.part(tuple, bytes)? {
            Object::Bytes(bytes) => bytes.clone(),
            Object::Text(text) if self.bytes_are_kept => text.as_bytes().into(),
            _ => return None,
        };
        let dtype = match self.part(tuple, dtype)? {
            Object::Opaque(name) => name.strip_prefix(DTYPE)?.into(),
            _ => return None,
        };
        let Object::Tuple(sides) = self.part(tuple, shape)? else { return None };
        let side = |id: &Id| match &self.objects[*id] {
            Object::Int(side) => usize::try_from(*side).ok(),
            _ => None,
        };
        let shape = sides.iter().map(side).collect::<Option<Vec<usize>>>()?;
        Some(Object::Array(Array { shape, dtype, bytes }.into()))
    }

    fn pair(&self, id: Id) -> Option<(Id, Id)> {
        match &self.objects[id] {
            Object::Tuple(pair) | Object::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
            _ => None,
        }
    }

    /// The tensor of a storage, an offset, a shape and strides.
    fn view(&self, storage: Rc<Storage>, arguments: Id) -> Option<Tensor> {
        let Object::Tuple(items) = &self.objects[arguments] else { return None };
        let numbers = |i: usize| {
            let id = *items.get(i)?;
            match &self.objects[id] {
                Object::Tuple(sides) if sides.len() <= MOST_AXES => {
                    (0..sides.len()).map(|axis| self.count_at(id, axis)).collect::<Option<Vec<u64>>>()
                }
                _ => None,
            }
        };
        let (offset, shape, strides) = (self.count_at(arguments, 1)?, numbers(2)?, numbers(3)?);
        let shape: Vec<usize> =
            shape.into_iter().map(|side| usize::try_from(side).ok()).collect::<Option<_>>()?;
        (shape.len() == strides.len()).then_some(Tensor { storage, offset, shape, strides })
    }
}

/// The type of a storage's elements.
fn dtype(kind: &str) -> Option<Dtype> {
    Some(match kind {
        "torch.FloatStorage" => Dtype::F32,
        "torch.DoubleStorage" => Dtype::F64,
        "torch.HalfStorage" => Dtype::F16,
        "torch.BFloat16Storage" => Dtype::BF16,
        "torch.LongStorage" => Dtype::I64,
        "torch.IntStorage" => Dtype::I32,
        "torch.ShortStorage" => Dtype::I16,
        "torch.CharStorage" => Dtype::I8,
        "torch.ByteStorage" => Dtype::U8,
        "torch.BoolStorage" => Dtype::BOOL,
        _ => return None,
    })
}
