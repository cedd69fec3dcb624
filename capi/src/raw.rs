//! What C passes: pointers, texts, lists and structs of options, read and written with every check that can be made.
//!
//! The types here have the layout of a plain pointer and no constructor, so a value of them is always one that C passed to
//! an entry point. The header states what C promises with it: NULL, or memory of the stated length that is readable (or
//! writable) until the call returns. NULL, alignment, lengths and UTF-8 are checked; that the memory is there cannot be.

use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::str::FromStr;

use crate::status::{BUFFER, Failure, NULL, Outcome};

fn null(what: &str) -> Failure {
    Failure::new(NULL, format!("the {what} is NULL"))
}

fn aligned<T>(pointer: *const T, what: &str) -> Outcome {
    match pointer.is_aligned() {
        true => Ok(()),
        false => Err(Failure::argument(format!(
            "the {what} is at {pointer:p}, which is no multiple of {}",
            align_of::<T>()
        ))),
    }
}

/// A text that C passes: UTF-8 that ends with a 0.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    /// No text, in options.
    pub const NONE: Text = Text(std::ptr::null());

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// A text of the library's own, to be given out.
    pub fn of(text: &CStr) -> Text {
        Text(text.as_ptr())
    }

    /// The text.
    pub fn get(&self, what: &str) -> Outcome<&str> {
        self.find(what)?.ok_or_else(|| null(what))
    }

    /// The text; none of NULL.
    pub fn find(&self, what: &str) -> Outcome<Option<&str>> {
        if self.0.is_null() {
            return Ok(None);
        }
        // SAFETY: not NULL, and C promises an end within readable memory.
        let text = unsafe { CStr::from_ptr(self.0) };
        text.to_str().map(Some).map_err(|e| Failure::argument(format!("the {what} is not UTF-8: {e}")))
    }

    /// One of the library's names of this type; none of NULL.
    pub fn named<T: for<'de> serde::Deserialize<'de>>(&self, what: &str) -> Outcome<Option<T>> {
        let Some(text) = self.find(what)? else { return Ok(None) };
        let value = serde_json::Value::String(text.into());
        serde_json::from_value(value).map(Some).map_err(|e| Failure::argument(format!("the {what}: {e}")))
    }

    /// A value of the library's as its command line reads it; none of NULL.
    pub fn parsed<T: FromStr<Err = String>>(&self, what: &str) -> Outcome<Option<T>> {
        let Some(text) = self.find(what)? else { return Ok(None) };
        text.parse().map(Some).map_err(|error| Failure::argument(format!("the {what}, `{text}`: {error}")))
    }

    /// The library's names of this type, separated by commas; none of NULL.
    pub fn list<T: for<'de> serde::Deserialize<'de>>(&self, what: &str) -> Outcome<Vec<T>> {
        let Some(text) = self.find(what)? else { return Ok(vec![]) };
        let value = text.split(',').map(|name| serde_json::Value::String(name.trim().into())).collect();
        serde_json::from_value(value).map_err(|e| Failure::argument(format!("the {what}: {e}")))
    }
}

/// Values that C passes to be read: one, or a list.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T> In<T> {
    /// No list, in options.
    pub const NONE: In<T> = In(std::ptr::null());

    /// One value.
    pub fn get(&self, what: &str) -> Outcome<&T> {
        Ok(&self.list(1, what)?[0])
    }

    /// A list of this many; NULL is one of none.
    pub fn list(&self, count: usize, what: &str) -> Outcome<&[T]> {
        if count == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() {
            return Err(null(what));
        }
        aligned(self.0, what)?;
        if count.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
            return Err(Failure::argument(format!(
                "{count} elements of the {what} are more than can be addressed"
            )));
        }
        // SAFETY: not NULL, aligned, of a length that a slice can have, and C promises that so much is readable and is not
        // written meanwhile.
        Ok(unsafe { std::slice::from_raw_parts(self.0, count) })
    }

    /// A list that begins here, of unknown length.
    pub fn at(first: *const T) -> In<T> {
        In(first)
    }

    /// A list of the library's own, to be given out.
    pub fn of(list: &[T]) -> In<T> {
        In(list.as_ptr())
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }
}

/// A place that C passes to be written.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Out<T>(*mut T);

/// A place that was checked.
pub struct Place<T>(*mut T);

impl<T> Out<T> {
    /// Checks the place of one value.
    pub fn open(&self, what: &str) -> Outcome<Place<T>> {
        if self.0.is_null() {
            return Err(null(what));
        }
        aligned(self.0, what)?;
        Ok(Place(self.0))
    }

    /// [`Out::open`]; none of NULL, where C does not want the value.
    pub fn wanted(&self, what: &str) -> Outcome<Option<Place<T>>> {
        if self.0.is_null() { Ok(None) } else { self.open(what).map(Some) }
    }

    /// Writes a list, where there are this many places.
    pub fn put_list(&self, values: &[T], places: usize, what: &str) -> Outcome
    where
        T: Copy,
    {
        if values.len() > places {
            return Err(Failure::new(
                BUFFER,
                format!("{} places for the {} values of the {what}", places, values.len()),
            ));
        }
        if values.is_empty() {
            return Ok(());
        }
        let Place(first) = self.open(what)?;
        // SAFETY: not NULL, aligned, C promises this many writable places, and what is read is the library's own.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), first, values.len()) };
        Ok(())
    }
}

impl Out<c_char> {
    /// Writes a text with a 0 at its end, where all of it fits; `needed` gets its bytes and the 0.
    pub fn put_whole(&self, text: &str, size: usize, needed: Out<usize>) -> Outcome {
        let whole = text.len() + 1;
        if size > 0 && size < whole {
            if let Some(needed) = needed.wanted("needed size")? {
                needed.write(whole);
            }
            return Err(Failure::new(BUFFER, format!("{size} bytes for a text of {whole}")));
        }
        self.put_text(text, size, needed)
    }

    /// Writes as much of a text as fits, with a 0 at its end; `needed` gets the bytes of all of it and the 0.
    pub fn put_text(&self, text: &str, size: usize, needed: Out<usize>) -> Outcome {
        let needed = needed.wanted("needed size")?;
        let bytes = text.as_bytes();
        if let Some(needed) = needed {
            needed.write(bytes.len() + 1);
        }
        if size == 0 {
            return Ok(());
        }
        let mut end = bytes.len().min(size - 1);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let whole: Vec<c_char> = bytes[..end].iter().map(|&byte| byte as c_char).chain([0]).collect();
        self.put_list(&whole, size, "text")
    }
}

impl<T> Place<T> {
    /// Writes the value.
    pub fn write(self, value: T) {
        // SAFETY: checked where it was opened: not NULL, aligned, and C promises that it is writable.
        unsafe { self.0.write(value) };
    }
}

/// A struct that begins with its own size, so that programs and libraries of different versions understand each other.
///
/// # Safety
/// The type has the layout of C, no padding, and every pattern of bits is a value of it.
pub unsafe trait Versioned: Copy {
    /// Its name in the header.
    const NAME: &'static str;
    /// The names of its fields and where each ends.
    const FIELDS: &'static [(&'static str, usize, usize)];
    /// What an option has that nobody set; of what the library fills, empty.
    const DEFAULT: Self;
}

/// Declares a [`Versioned`] struct; fields are added at the end, and 0 stands for the default of one that is added.
macro_rules! versioned {
    ($(#[$doc:meta])* $name:ident as $c:literal { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr),+ $(,)? }) => {
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy)]
        #[allow(missing_docs)] // the header describes the fields
        pub struct $name {
            pub struct_size: usize,
            $($(#[$field_doc])* pub $field: $type,)+
        }

        const _: () = assert!(size_of::<$name>() == size_of::<usize>() $(+ size_of::<$type>())+, "no padding");

        // SAFETY: the layout of C; no padding, by the line above; integers, floats, pointers and functions that may be NULL.
        unsafe impl $crate::raw::Versioned for $name {
            const NAME: &'static str = $c;
            const FIELDS: &'static [(&'static str, usize, usize)] = &[
                ("struct_size", 0, size_of::<usize>()),
                $((
                    stringify!($field),
                    std::mem::offset_of!($name, $field),
                    std::mem::offset_of!($name, $field) + size_of::<$type>(),
                ),)+
            ];
            const DEFAULT: $name = $name::EMPTY;
        }

        impl $name {
            /// What an option has that nobody set; of what the library fills, empty.
            pub const EMPTY: $name = $name { struct_size: size_of::<$name>(), $($field: $default,)+ };
        }
    };
}

pub(crate) use versioned;

/// The most bytes that a struct of a later version may have.
const LARGEST: usize = 1 << 16;

fn check_size<T: Versioned>(size: usize) -> Outcome {
    let ends = T::FIELDS.iter().any(|(_, _, end)| *end == size);
    match ends || (size > size_of::<T>() && size <= LARGEST) {
        true => Ok(()),
        false => Err(Failure::argument(format!(
            "{}: struct_size is {size}, which is the size of no version; set it to sizeof, or call the init function",
            T::NAME
        ))),
    }
}

/// Options that C passes: NULL for the defaults.
#[repr(transparent)]
pub struct Options<T>(*const T);

impl<T: Versioned> Options<T> {
    /// The options: what a smaller struct lacks has its default, and what a larger one has beyond must be 0.
    pub fn get(&self) -> Outcome<T> {
        let mut options = T::DEFAULT;
        if self.0.is_null() {
            return Ok(options);
        }
        aligned(self.0, T::NAME)?;
        // SAFETY: not NULL and aligned; C promises that its first field is readable.
        let size = unsafe { *self.0.cast::<usize>() };
        check_size::<T>(size)?;
        let known = size.min(size_of::<T>());
        // SAFETY: C promises `size` readable bytes; both are at least `known` long, and every pattern of bits is a value.
        unsafe { std::ptr::copy_nonoverlapping(self.0.cast::<u8>(), (&raw mut options).cast::<u8>(), known) };
        // SAFETY: C promises `size` readable bytes, of which these are the ones after `known`.
        let beyond = unsafe { std::slice::from_raw_parts(self.0.cast::<u8>().add(known), size - known) };
        if let Some(at) = beyond.iter().position(|&byte| byte != 0) {
            let at = known + at;
            return Err(Failure::argument(format!(
                "{}: byte {at} is set, and this version of the library knows {known} bytes; it is older than the header",
                T::NAME
            )));
        }
        Ok(options)
    }
}

/// A struct of the caller's that the library fills.
#[repr(transparent)]
pub struct Info<T>(*mut T);

impl<T: Versioned> Info<T> {
    /// Fills as much of it as `size` bytes hold and sets the rest to 0: the init function of options.
    pub fn init(&self, size: usize) -> Outcome {
        self.fill(T::DEFAULT, size)
    }

    /// Fills what its `struct_size` says that it has.
    pub fn put(&self, value: T) -> Outcome {
        self.check()?;
        // SAFETY: not NULL and aligned, as was checked; C promises that its first field is readable.
        let size = unsafe { *self.0.cast::<usize>() };
        self.fill(value, size)
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        self.0.is_null()
    }

    /// Checks it before the work for it is done.
    pub fn check(&self) -> Outcome {
        if self.0.is_null() {
            return Err(null(T::NAME));
        }
        aligned(self.0, T::NAME)?;
        // SAFETY: not NULL and aligned; C promises that its first field is readable.
        check_size::<T>(unsafe { *self.0.cast::<usize>() })
    }

    fn fill(&self, value: T, size: usize) -> Outcome {
        if self.0.is_null() {
            return Err(null(T::NAME));
        }
        aligned(self.0, T::NAME)?;
        check_size::<T>(size)?;
        let known = size.min(size_of::<T>());
        let value = MaybeUninit::new(value);
        // SAFETY: C promises `size` writable bytes, of which `known` are written from a value of at least that length and
        // without padding; the rest are set to 0.
        unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr().cast::<u8>(), self.0.cast::<u8>(), known);
            self.0.cast::<u8>().add(known).write_bytes(0, size - known);
            self.0.cast::<usize>().write(size);
        }
        Ok(())
    }
}
