//! Handles: numbers in the form of pointers, each for an object that the library shares.
//!
//! A number is given once and never again, so that a freed handle, one of another kind and one that never was are all
//! found. A call holds its objects until it ends, also where another thread frees their handles meanwhile.

use std::any::Any;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::raw::Out;
use crate::status::{self, Failure, HANDLE, NULL, Outcome};

/// What a handle can stand for.
pub trait Object: Any + Send + Sync {
    /// Its name in messages and in the header, without `sj_`.
    const NAME: &'static str;
}

/// A handle as C has it.
#[repr(transparent)]
pub struct Handle<T>(*const Opaque, PhantomData<T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Handle<T> {
        *self
    }
}

impl<T> Copy for Handle<T> {}

/// What a handle seems to point to.
pub enum Opaque {}

/// An object and the name of its kind.
type Entry = (&'static str, Arc<dyn Any + Send + Sync>);

/// The objects of one process.
struct Registry {
    process: u32,
    next: AtomicU64,
    objects: RwLock<BTreeMap<u64, Entry>>,
}

static REGISTRY: AtomicPtr<Registry> = AtomicPtr::new(std::ptr::null_mut());

/// The registry of this process. In a child made by `fork`, the parent's is left alone: its lock may be held by a thread that
/// the child does not have, and its objects need such threads. The child begins with an empty one.
fn registry() -> &'static Registry {
    let process = std::process::id();
    loop {
        let found = REGISTRY.load(Ordering::Acquire);
        // SAFETY: what the pointer was set to below is never freed.
        let first = match unsafe { found.as_ref() } {
            Some(registry) if registry.process == process => return registry,
            // A child goes on with the numbers, so that it takes none of the parent's for one of its own.
            Some(parent) => parent.next.load(Ordering::Relaxed),
            // Two copies of the library in a program begin with other numbers: theirs is not where ours is.
            None => {
                ((&raw const REGISTRY as u64 >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) << 47 | 0x10
            }
        };
        let fresh = Registry { process, next: AtomicU64::new(first), objects: RwLock::default() };
        let fresh = Box::into_raw(Box::new(fresh));
        if REGISTRY.compare_exchange(found, fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // SAFETY: it was made above, and nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
        }
    }
}

impl<T: Object> Handle<T> {
    /// No handle, in options.
    pub const NONE: Handle<T> = Handle(std::ptr::null(), PhantomData);

    /// The object.
    pub fn get(&self) -> Outcome<Arc<T>> {
        self.find()?.ok_or_else(|| Failure::new(NULL, format!("the {} is NULL", T::NAME)))
    }

    /// The object; none of NULL.
    pub fn find(&self) -> Outcome<Option<Arc<T>>> {
        if self.0.is_null() {
            return Ok(None);
        }
        let number = self.0 as u64;
        status::given(number);
        let objects = registry().objects.read().unwrap_or_else(PoisonError::into_inner);
        let (name, object) = objects.get(&number).cloned().ok_or_else(dead::<T>)?;
        object.downcast().map(Some).map_err(|_| wrong::<T>(name))
    }

    /// Ends the handle; NULL is left alone.
    pub fn free(&self) -> Outcome {
        if self.find()?.is_some() {
            let number = self.0 as u64;
            let removed = registry().objects.write().unwrap_or_else(PoisonError::into_inner).remove(&number);
            drop(removed.ok_or_else(dead::<T>)?); // the lock is released: the object may take its time to end
        }
        Ok(())
    }
}

fn dead<T: Object>() -> Failure {
    let reason = "it was freed, was made before a fork, or never was a handle";
    Failure::new(HANDLE, format!("no live handle of a {}: {reason}", T::NAME))
}

fn wrong<T: Object>(name: &str) -> Failure {
    Failure::new(HANDLE, format!("a handle of a {} where one of a {} was expected", name, T::NAME))
}

/// Gives out handles: where C wants one.
#[repr(transparent)]
pub struct NewHandle<T>(Out<*const Opaque>, PhantomData<T>);

impl<T: Object> NewHandle<T> {
    /// Checks that there is a place for it and sets that to NULL, before the work for the object is done.
    pub fn open(&self) -> Outcome {
        self.0.open(T::NAME)?.write(std::ptr::null());
        Ok(())
    }

    /// Shares an object.
    pub fn put(&self, object: impl Into<Arc<T>>) -> Outcome {
        let place = self.0.open(T::NAME)?;
        let (registry, object): (_, Arc<T>) = (registry(), object.into());
        let number = registry.next.fetch_add(0x10, Ordering::Relaxed);
        registry.objects.write().unwrap_or_else(PoisonError::into_inner).insert(number, (T::NAME, object));
        place.write(number as *const Opaque);
        Ok(())
    }
}

/// A handle of any kind, or none: what `sj_last_error` takes.
#[repr(transparent)]
pub struct AnyHandle(*const Opaque);

impl AnyHandle {
    /// Its number; none of NULL.
    pub fn number(&self) -> Option<u64> {
        (!self.0.is_null()).then_some(self.0 as u64)
    }
}

const _: () = assert!(size_of::<usize>() == 8); // numbers of handles are those of 64-bit pointers
