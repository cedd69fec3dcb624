//! The spool: the folder of a queue, and every change of it.
//!
//! ```text
//! lock                  held by the server that works here
//! spool.json            the model and the data that the spool belongs to, as hashes
//! incoming/ID.json      requests, renamed in by whoever asks
//! working/batch.json    the batch that is worked off: its requests, whole, and the version that it is to give
//! working/0001-HASH/    its run, to go on from
//! versions/0001/        a version of the model, complete, with its report
//! held/0001.safetensors the samples that it forgot, with the soft labels that later versions hold them at
//! current               a symbolic link to the newest version
//! done/ID.json          receipts of samples that were removed
//! refused/ID.json       receipts of the others, with the files that were no requests beside
//! ```
//!
//! A file appears complete: it is written under another name, flushed and renamed, and then its folder is flushed.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::receipt::{Receipt, State};
use super::submission::Submission;
use crate::data::tensors::{self, Tensor, TensorFile, Values};
use crate::error::{Error, Result};
use crate::soft_label::Held;

/// The version of the layout.
const VERSION: u32 = 1;

/// What is called before each change, with its name.
pub type Hook = dyn FnMut(&'static str) -> Result<()> + Send;

/// A folder that one server works in.
pub struct Spool {
    pub(super) root: PathBuf,
    lock: File,
    hook: Option<Box<Hook>>,
}

impl Drop for Spool {
    /// Unlocks it. To close the file is not enough while a process that was just started still has it open.
    fn drop(&mut self) {
        let _ = self.lock.unlock(); // the file is closed anyway
    }
}

/// What a spool belongs to.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    spool: u32,
    model_sha256: String,
    data_sha256: String,
}

/// The batch that is worked off.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Journal {
    /// The version that it is to give.
    pub version: u32,
    /// The hash of the model that it begins with.
    pub model_sha256: String,
    /// Whether the requests are tried one by one, the first one first, because they failed together.
    pub alone: bool,
    /// The requests that have no receipt yet.
    pub requests: Vec<Entry>,
}

/// A request of a batch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// As it came in.
    pub submission: Submission,
    /// Its samples that the model still knows.
    pub samples: Vec<usize>,
    /// Its samples that an earlier version forgot.
    pub forgotten_before: Vec<usize>,
    /// When its file was written, in seconds since 1970.
    pub received: u64,
}

impl Journal {
    /// The requests that are tried together.
    pub fn batch(&self) -> &[Entry] {
        if self.alone { &self.requests[..self.requests.len().min(1)] } else { &self.requests }
    }
}

impl Spool {
    /// Opens a spool, or makes one.
    ///
    /// # Errors
    /// Where another server works there, or the file system refuses.
    pub fn open(root: &Path) -> Result<Spool> {
        for folder in ["incoming", "working", "done", "refused", "versions", "held"] {
            let folder = root.join(folder);
            std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        }
        let path = root.join("lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        let lock = lock.map_err(Error::io(&path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Spool { root: root.into(), lock, hook: None }),
            Err(TryLockError::WouldBlock) => {
                let reason =
                    "is locked: another server works on this spool; stop it, or choose another --spool";
                Err(Error::config(format!("{}: {reason}", path.display())))
            }
            Err(TryLockError::Error(source)) => Err(Error::Io { path, source }),
        }
    }

    /// Calls `hook` before each change of the spool; where it fails, the change is not made.
    pub fn on_change(&mut self, hook: Box<Hook>) {
        self.hook = Some(hook);
    }

    /// Tells that a change follows.
    ///
    /// # Errors
    /// Those of the hook.
    pub fn change(&mut self, what: &'static str) -> Result<()> {
        self.hook.as_mut().map_or(Ok(()), |hook| hook(what))
    }

    /// Binds a new spool to a model and data.
    ///
    /// # Errors
    /// Where it belongs to others.
    pub fn bind(&mut self, model_sha256: &str, data_sha256: &str) -> Result<()> {
        let path = self.root.join("spool.json");
        let owner =
            Owner { spool: VERSION, model_sha256: model_sha256.into(), data_sha256: data_sha256.into() };
        let Some(found) = read_json_if_there::<Owner>(&path)? else {
            return self.put("owner", &path, &owner);
        };
        let what = match &found {
            found if *found == owner => return Ok(()),
            found if found.spool != VERSION => "a spool of another version of scrubjay",
            found if found.data_sha256 != owner.data_sha256 => {
                "a spool of other --data, in which samples have other numbers"
            }
            _ => "a spool of another --model; give the one that it began with, not a later version",
        };
        Err(Error::config(format!("{}: is {what}", path.display())))
    }

    /// The folder of requests that come in.
    pub fn incoming(&self) -> PathBuf {
        self.root.join("incoming")
    }

    /// The folder of a version; it is there once the version is complete.
    pub fn version(&self, version: u32) -> PathBuf {
        self.root.join("versions").join(format!("{version:04}"))
    }

    /// The folder of a run that is to give a version.
    pub fn attempt(&self, version: u32, identity: &str) -> PathBuf {
        let end = identity.len().saturating_sub(16);
        self.root.join("working").join(format!("{version:04}-{}", &identity[end..]))
    }

    fn receipt_path(&self, state: State, name: &str) -> PathBuf {
        let folder = if state == State::Removed { "done" } else { "refused" };
        self.root.join(folder).join(format!("{name}.json"))
    }

    /// The receipt of an id, where its samples were removed or tried.
    ///
    /// # Errors
    /// Where it cannot be read; [`Error::Data`] with its path where it is damaged.
    pub fn answered(&self, id: &str) -> Result<Option<Receipt>> {
        for state in [State::Removed, State::NotRemoved] {
            let path = self.receipt_path(state, id);
            let found: Option<Receipt> = read_json_if_there(&path)?;
            if let Some(receipt) = found.filter(|receipt| receipt.state != State::Refused) {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    /// Moves a receipt that is damaged aside, as `NAME.json.damaged`, where no receipt is looked for.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn set_damaged_aside(&mut self, receipt: &Path) -> Result<PathBuf> {
        self.change("damaged receipt")?;
        let mut to = receipt.as_os_str().to_owned();
        to.push(".damaged");
        let to = PathBuf::from(to);
        std::fs::rename(receipt, &to).map_err(Error::io(receipt))?;
        receipt.parent().map_or(Ok(()), flush)?;
        Ok(to)
    }

    /// Writes a receipt as `NAME.json`; whether it was new.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write_receipt(&mut self, name: &str, receipt: &Receipt) -> Result<bool> {
        let path = self.receipt_path(receipt.state, name);
        let same = |found: &Receipt| Receipt { finished: receipt.finished, ..found.clone() } == *receipt;
        let new = !read_json(&path).is_ok_and(|found: Receipt| same(&found));
        if new {
            self.put("receipt", &path, receipt)?;
        }
        let refusal = self.receipt_path(State::Refused, name); // of an earlier file of this id that was no request
        if receipt.state == State::Removed && refusal.try_exists().map_err(Error::io(&refusal))? {
            self.change("end of refusal")?;
            std::fs::remove_file(&refusal).map_err(Error::io(&refusal))?;
            flush(&self.root.join("refused"))?;
        }
        Ok(new)
    }

    fn journal_path(&self) -> PathBuf {
        self.root.join("working/batch.json")
    }

    /// The batch that is worked off.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn journal(&self) -> Result<Option<Journal>> {
        read_json_if_there(&self.journal_path())
    }

    /// Keeps the batch that is worked off; one without requests is over.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn keep(&mut self, journal: &Journal) -> Result<()> {
        let path = self.journal_path();
        if !journal.requests.is_empty() {
            return self.put("batch", &path, journal);
        }
        self.change("end of batch")?;
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
        flush(&self.root.join("working"))
    }

    /// Removes runs that are not `kept`.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn clear_attempts(&mut self, kept: Option<&Path>) -> Result<()> {
        let folder = self.root.join("working");
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            if path.is_dir() && Some(path.as_path()) != kept {
                self.change("clear")?;
                std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            }
        }
        Ok(())
    }

    /// Makes a run that is complete a version.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn publish(&mut self, attempt: &Path, version: u32) -> Result<()> {
        flush(attempt)?;
        self.change("publish")?;
        std::fs::rename(attempt, self.version(version)).map_err(Error::io(attempt))?;
        flush(&self.root.join("versions"))?;
        flush(&self.root.join("working"))
    }

    /// The newest version, 0 where there is none yet.
    ///
    /// # Errors
    /// Where `current` is not what this program writes.
    pub fn current(&self) -> Result<u32> {
        let path = self.root.join("current");
        match std::fs::read_link(&path) {
            Ok(target) => {
                let name = target.strip_prefix("versions").ok().and_then(|name| name.to_str());
                name.and_then(|name| name.parse().ok()).ok_or_else(|| {
                    Error::data(&path, format!("leads to {}, which is no version", target.display()))
                })
            }
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(0),
            Err(source) => Err(Error::Io { path, source }),
        }
    }

    /// Checks that `current` leads to the newest version: the last one that `held` has, but for one that a batch is to make current.
    /// A spool that lost the link would begin again with the first model, which has all samples.
    ///
    /// # Errors
    /// Where it leads to another version, or a folder cannot be read.
    pub fn check_current(&self) -> Result<()> {
        let (current, mut newest, folder) = (self.current()?, 0, self.root.join("held"));
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let name = entry.map_err(Error::io(&folder))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_suffix(".safetensors")?.parse().ok());
            newest = newest.max(number.unwrap_or(0));
        }
        if newest == current
            || (newest == current + 1 && self.journal()?.is_some_and(|journal| journal.version == newest))
        {
            return Ok(());
        }
        let path = self.root.join("current");
        let leads = if current == 0 { "is missing".into() } else { format!("leads to version {current:04}") };
        let remedy = match newest > current {
            true => format!(
                "where versions/{newest:04} is whole, restore the link (ln -sfn versions/{newest:04} current), else the spool from a \
                 backup"
            ),
            false => format!("restore held/ up to {current:04}.safetensors from a backup"),
        };
        let reason = format!("{leads}, and the newest version in held/ is {newest:04}; {remedy}");
        Err(Error::config(format!("{}: {reason}", path.display())))
    }

    /// Lets `current` lead to a version, by rename: a reader finds the one before or this one.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn set_current(&mut self, version: u32) -> Result<()> {
        if self.current()? == version {
            return Ok(());
        }
        self.change("current")?;
        let (path, part) = (self.root.join("current"), self.root.join("current.part"));
        let _ = std::fs::remove_file(&part); // of a server that was killed
        link(Path::new(&format!("versions/{version:04}")), &part).map_err(Error::io(&part))?;
        std::fs::rename(&part, &path).map_err(Error::io(&path))?;
        flush(&self.root)
    }

    /// The samples that a version forgot, with their soft labels where a hold removed them.
    ///
    /// # Errors
    /// Where the file is missing or damaged.
    pub fn held(&self, version: u32) -> Result<Held> {
        let path = self.held_path(version);
        let file = TensorFile::open(&path)?;
        let index = |i: i64| usize::try_from(i).map_err(|_| Error::data(&path, format!("{i} is no index")));
        let indices = file.integers("indices")?.into_iter().map(index).collect::<Result<_>>()?;
        Ok(Held { indices, soft_labels: file.f32("soft_labels")? })
    }

    /// Keeps the samples that a version forgot.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn write_held(&mut self, version: u32, held: &Held) -> Result<()> {
        if self.held(version).is_ok_and(|found| found == *held) {
            return Ok(());
        }
        self.change("held")?;
        let indices: Vec<i64> = held.indices.iter().map(|&i| i as i64).collect();
        let all = [
            Tensor { name: "indices", shape: vec![indices.len()], values: Values::I64(&indices) },
            Tensor {
                name: "soft_labels",
                shape: vec![held.soft_labels.len()],
                values: Values::F32(&held.soft_labels),
            },
        ];
        tensors::write(&self.held_path(version), &all, HashMap::new())?;
        flush(&self.root.join("held"))
    }

    fn held_path(&self, version: u32) -> PathBuf {
        self.root.join("held").join(format!("{version:04}.safetensors"))
    }

    /// Removes versions up to `over` but for the newest `keep`, and of these the values that only an interrupted run needs.
    ///
    /// # Errors
    /// Where the file system refuses.
    pub fn prune(&mut self, keep: usize, over: u32) -> Result<()> {
        let (folder, current) = (self.root.join("versions"), self.current()?);
        for entry in std::fs::read_dir(&folder).map_err(Error::io(&folder))? {
            let path = entry.map_err(Error::io(&folder))?.path();
            let number =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
            let Some(number) = number.filter(|&number| number <= over) else { continue };
            let (old, events) = ((current - number) as usize >= keep, path.join("events.jsonl"));
            if old {
                self.change("prune")?;
                std::fs::remove_dir_all(&path).map_err(Error::io(&path))?;
            } else if events.exists() {
                self.change("prune")?;
                std::fs::remove_file(&events).map_err(Error::io(&events))?;
            }
        }
        Ok(())
    }

    /// Writes JSON to a file of the spool.
    fn put(&mut self, what: &'static str, path: &Path, value: &impl Serialize) -> Result<()> {
        self.change(what)?;
        let text = serde_json::to_string_pretty(value).map_err(|e| Error::data(path, e.to_string()))?;
        tensors::write_whole(path, text.as_bytes())?;
        path.parent().map_or(Ok(()), flush)
    }
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T> {
    serde_json::from_slice(&tensors::read(path)?)
        .map_err(|e| Error::data(path, format!("is not what a server writes: {e}")))
}

/// [`read_json`], none where there is no such file; a file that cannot be read is an error and not a missing one.
fn read_json_if_there<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>> {
    match read_json(path) {
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// Waits until the names in a folder are on the disk.
pub(super) fn flush(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(Error::io(folder))
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(to, at)
}

#[cfg(not(unix))]
fn link(to: &Path, at: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_dir(to, at)
}
