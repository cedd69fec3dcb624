//! Functions of the caller's that a session calls: progress, which may cancel, and messages.

use std::ffi::{CString, c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use scrubjay::session::{Level, Progress};
use scrubjay::{Error, Session};

use crate::raw::{Text, versioned};

/// `sj_progress`.
#[repr(C)]
pub struct ProgressReport {
    done: u64,
    batches: u64,
    phase: Text,
}

/// The fields of `sj_progress`, for the test that compares them with the header.
#[cfg(test)]
pub const FIELDS: [(&str, usize); 3] = {
    use std::mem::offset_of;
    [
        ("done", offset_of!(ProgressReport, done)),
        ("batches", offset_of!(ProgressReport, batches)),
        ("phase", offset_of!(ProgressReport, phase)),
    ]
};

/// What C calls with progress; another result than 0 cancels.
pub type OnProgress = extern "C" fn(progress: *const ProgressReport, user: *mut c_void) -> i32;

/// What C calls with a message; level 1 is a warning, 0 is not.
pub type OnLog = extern "C" fn(level: i32, message: *const c_char, user: *mut c_void);

versioned! {
    /// `sj_callbacks`.
    Callbacks as "sj_callbacks" {
        progress: Option<OnProgress> = None,
        log: Option<OnLog> = None,
        user: *mut c_void = std::ptr::null_mut(),
    }
}

/// The pointer that C wants back in its functions.
#[derive(Clone, Copy)]
struct User(*mut c_void);

// SAFETY: the library never follows the pointer; C promises that its functions may be called with it in every thread that
// calls the session.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    fn pointer(self) -> *mut c_void {
        self.0
    }
}

impl Callbacks {
    /// A session that calls these functions, and that `stop` ends.
    pub fn attach(&self, session: Session, stop: &Arc<AtomicBool>) -> Session {
        let user = User(self.user);
        let mut session = session.with_stop(stop.clone());
        if let Some(progress) = self.progress {
            let stop = stop.clone();
            session = session.on_progress(move |now| {
                if !goes_on(progress, now, user) {
                    stop.store(true, Ordering::Relaxed);
                }
            });
        }
        if let Some(log) = self.log {
            session = session.on_log(move |level, message| say(log, level, message, user));
        }
        session
    }

    /// What is called after each of this many pieces of work, with how many are done; it ends the work where C cancels.
    pub fn each_of(&self, pieces: usize) -> impl FnMut(usize) -> scrubjay::Result<()> {
        let (progress, user) = (self.progress, User(self.user));
        move |done| match progress {
            Some(progress) if !goes_on(progress, Progress { done, batches: pieces, phase: None }, user) => {
                Err(Error::Interrupted { kept: "nothing was changed".into() })
            }
            _ => Ok(()),
        }
    }

    /// Passes a warning on.
    pub fn warn(&self, message: &str) {
        if let Some(log) = self.log {
            say(log, Level::Warning, message, User(self.user));
        }
    }
}

/// Reports progress; whether to go on.
fn goes_on(progress: OnProgress, Progress { done, batches, phase }: Progress, user: User) -> bool {
    // A text from C has no 0 within, and the names of phases have none.
    let name = phase.and_then(|phase| CString::new(phase).ok());
    let phase = name.as_deref().map_or(Text::NONE, Text::of);
    let report = ProgressReport { done: done as u64, batches: batches as u64, phase };
    progress(&raw const report, user.pointer()) == 0
}

fn say(log: OnLog, level: Level, message: &str, user: User) {
    let level = match level {
        Level::Info => 0,
        Level::Warning => 1,
    };
    let message = CString::new(message.replace('\0', " ")).unwrap_or_default();
    log(level, message.as_ptr(), user.pointer());
}
