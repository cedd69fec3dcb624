//! Several ranks of one run, started by mpirun or srun: whether there are, that they have the same work, and how they end
//! together. Rank 0 alone prints.

use std::sync::OnceLock;
use std::time::Duration;

use scrubjay::communicator::{Communicator, work};
use scrubjay::{Error, Result};

use super::output::{error, is_silent, silence};

/// The ranks of this run, where there are several.
static RANKS: OnceLock<Communicator> = OnceLock::new();

/// Options whose values are files that a command writes.
const WRITTEN: [&str; 7] = ["--out", "--html", "--plot", "--dot", "--resume", "--data-out", "--spool"];

/// How long a rank that failed waits for the others to hear of it before it ends them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What tells that a launcher started this process, with the number of ranks or without.
const LAUNCHED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "PMIX_RANK"];

/// Joins the other ranks, where a launcher started several; `shares` says whether the command can be shared.
pub fn join(shares: bool) -> Result<()> {
    let found = LAUNCHED.iter().find_map(|name| Some((*name, std::env::var(name).ok()?)));
    let Some((name, value)) = found else { return Ok(()) };
    let ranks = start(name, &value)?;
    silence(!ranks.leads());
    let ranks = RANKS.get_or_init(|| ranks);
    if ranks.size() > 1 && !shares {
        let reason = "this command is not shared between ranks; start it without mpirun or srun";
        return Err(Error::config(format!("{} ranks: {reason}", ranks.size())));
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match ranks.size() {
        1 => Ok(()),
        _ => ranks.compare(&work(&arguments, &WRITTEN)),
    }
}

#[cfg(feature = "mpi")]
fn start(_: &str, _: &str) -> Result<Communicator> {
    Communicator::mpi()
}

#[cfg(not(feature = "mpi"))]
fn start(name: &str, value: &str) -> Result<Communicator> {
    match name.ends_with("SIZE") && value != "1" {
        true => Err(Error::config(format!(
            "{value} ranks were started ({name}), and this program was built without MPI, so that each would do the whole \
             work: build it with --features mpi, or start it without mpirun"
        ))),
        false => Ok(Communicator::alone()),
    }
}

/// The ranks of this run.
pub fn ranks() -> Communicator {
    RANKS.get().cloned().unwrap_or_default()
}

/// Ends together with the other ranks: the exit code of this one, and the words to print here where one failed.
pub fn leave(code: u8, why: Option<String>) -> (u8, Option<String>) {
    let ranks = ranks();
    if ranks.size() > 1 && why.is_none() {
        let (received, exchanges) = ranks.traffic();
        let mib = received as f64 / f64::from(1 << 20);
        error(format_args!("ranks: this one received {mib:.1} MiB in {exchanges} exchanges"));
    }
    if let Some(why) = why.clone().filter(|_| ranks.size() > 1) {
        let rank = ranks.rank();
        // The others may be far from the next seam. The launcher ends them once this process has ended.
        std::thread::spawn(move || {
            std::thread::sleep(PATIENCE);
            silence(false);
            error(format_args!("error: rank {rank}: {why}"));
            std::process::exit(i32::from(code.max(1)));
        });
    }
    let (code, why) = ranks.leave(code, why.clone()).map_or((code, why), |end| (end.code, end.why));
    // mpirun ends all ranks with the first that ends with another code than 0: that is to be rank 0, once it has said why.
    match is_silent() {
        true => (0, None),
        false => (code, why),
    }
}
