//! Versions, names of statuses, and messages of failures.

use std::ffi::{CStr, c_char};

use crate::entry::entry;
use crate::handle::AnyHandle;
use crate::raw::Out;
use crate::status::{Failure, NAMES, message};

/// Grows where a program that was built with an older header would no longer run; the number in the SONAME.
const ABI: u32 = 0;

/// The version, as the header writes it: 10000 a major, 100 a minor version.
const VERSION: u32 = 100;

/// The same in words.
const VERSION_TEXT: &CStr = c"0.1.0";

const _: () = {
    let package = concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes();
    assert!(
        matches!(CStr::from_bytes_with_nul(package), Ok(text) if equal(text.to_bytes(), VERSION_TEXT.to_bytes()))
    );
};

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

entry! {
    /// Versions.
    fn sj_version(abi: Out<u32>, version: Out<u32>, text: Out<*const c_char>) {
        let (abi, version, text) = (abi.wanted("abi")?, version.wanted("version")?, text.wanted("text")?);
        if let Some(abi) = abi { abi.write(ABI) }
        if let Some(version) = version { version.write(VERSION) }
        if let Some(text) = text { text.write(VERSION_TEXT.as_ptr()) }
        Ok(())
    }

    /// The name of a status.
    fn sj_status_name(status: i32, name: Out<*const c_char>) {
        let name = name.open("name")?;
        let found = NAMES.iter().find(|(code, _)| *code == status).map(|(_, name)| name);
        name.write(found.ok_or_else(|| Failure::argument(format!("{status} is no status")))?.as_ptr());
        Ok(())
    }
}

/// The message of the last failed call. It is no entry like the others, because a call that asks for a message keeps none.
// SAFETY: no other function of the program has a name that begins with sj_.
#[unsafe(no_mangle)]
pub extern "C" fn sj_last_error(
    handle: AnyHandle,
    text: Out<c_char>,
    size: usize,
    needed: Out<usize>,
) -> i32 {
    crate::entry::quietly(|| text.put_text(&message(handle.number()), size, needed))
}
