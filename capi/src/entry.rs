//! The one way in: every exported function runs within [`run`], which catches panics and keeps the message of a failure.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::status::{self, Failure, Outcome, PANIC};

/// Runs the inside of an entry point; its status.
///
/// Objects behind handles are shared and never left half-changed: what a call changes, it makes anew and puts in place in
/// the end. So they stay usable after a panic.
pub fn run(name: &'static str, body: impl FnOnce() -> Outcome) -> i32 {
    let outer = status::begin();
    let result = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        crate::tests::panic_where_asked();
        body()
    }));
    let result = result.unwrap_or_else(|payload| {
        let failure = Failure::new(PANIC, format!("{name}: a defect of scrubjay: {}", text(&*payload)));
        // Dropping what was thrown may throw again; the last one is left alone.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
        Err(failure)
    });
    status::end(outer, result)
}

fn text(payload: &(dyn Any + Send)) -> &str {
    let literal = payload.downcast_ref::<&str>().copied();
    literal
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without words")
}

/// Entry points: `entry! { fn name(argument: Type, ..) { inside } }`, where the inside gives an [`Outcome`].
macro_rules! entry {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block)+) => {$(
        $(#[$doc])*
        // SAFETY: no other function of the program has a name that begins with sj_.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name($($argument: $type),*) -> i32 {
            $crate::entry::run(stringify!($name), move || $body)
        }
    )+};
}

pub(crate) use entry;

/// Runs a call that asks for the message of another and keeps none itself; its status.
pub fn quietly(body: impl FnOnce() -> Outcome) -> i32 {
    let outer = status::begin();
    let result = catch_unwind(AssertUnwindSafe(|| {
        #[cfg(test)]
        crate::tests::panic_where_asked();
        body()
    }));
    status::restore(outer);
    match result {
        Ok(Ok(())) => status::OK,
        Ok(Err(failure)) => failure.code,
        Err(payload) => {
            std::mem::forget(payload);
            PANIC
        }
    }
}
