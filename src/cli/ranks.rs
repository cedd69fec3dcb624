//! Several ranks of one run, started by mpirun, srun or torchrun: whether there are, that they have the same work, and how they end
//! together. Rank 0 alone prints.

use std::sync::OnceLock;
use std::time::Duration;

use scrubjay::communicator::{Communicator, Launched, Launcher, work};
use scrubjay::{Error, Result};

use super::output::{error, is_silent, silence};

/// The ranks of this run, where there are several.
static RANKS: OnceLock<Communicator> = OnceLock::new();

/// Which of its machine's ranks this is.
static LOCAL: OnceLock<Option<usize>> = OnceLock::new();

/// Options whose values are files that a command writes.
const WRITTEN: [&str; 7] = ["--out", "--html", "--plot", "--dot", "--resume", "--data-out", "--spool"];

/// How long a rank that failed waits for the others to hear of it before it ends them.
const PATIENCE: Duration = Duration::from_secs(5);

/// What tells that ranks were started that find one another by MPI, with their number or without.
const LAUNCHED: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "PMIX_RANK"];

/// Joins the other ranks, where a launcher started several; `shares` says whether the command can be shared.
pub fn join(shares: bool) -> Result<()> {
    let environment = |name: &str| std::env::var(name).ok();
    let launched = Launched::of(&environment)?;
    LOCAL.get_or_init(|| launched.as_ref().and_then(|launched| launched.local));
    let alone = |size: usize| match shares {
        true => Ok(()),
        false => Err(Error::config(format!(
            "{size} ranks: this command is not shared between ranks; start it without mpirun, srun or torchrun"
        ))),
    };
    let by_mpi = LAUNCHED.iter().find_map(|name| Some((*name, environment(name)?)));
    let ranks = match (&launched, by_mpi) {
        (Some(launched), _)
            if launched.size > 1 && (!cfg!(feature = "mpi") || launched.by == Launcher::Torchrun) =>
        {
            match launched.meeting(&environment)? {
                Some(meeting) => {
                    alone(launched.size)?; // before they wait for one another
                    Communicator::tcp(&meeting)?
                }
                None => return Err(nowhere(launched)),
            }
        }
        (_, Some((name, value))) => start(name, &value)?,
        _ => return Ok(()),
    };
    silence(!ranks.leads());
    let ranks = RANKS.get_or_init(|| ranks);
    if ranks.size() > 1 {
        alone(ranks.size())?;
    }
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match ranks.size() {
        1 => Ok(()),
        _ => ranks.compare(&work(&arguments, &WRITTEN)),
    }
}

/// That ranks do not know where to meet.
fn nowhere(launched: &Launched) -> Error {
    let Launched { by, size, .. } = launched;
    let meet = "MASTER_ADDR and MASTER_PORT say where rank 0 is";
    Error::config(match by {
        Launcher::Torchrun => {
            format!("{size} ranks (WORLD_SIZE), and the environment does not say where they meet: {meet}")
        }
        _ => format!(
            "{size} ranks were started by {by}, and this program was built without MPI, so that each would do the whole work: build it \
             with --features mpi, have them meet over TCP ({meet}), or start one"
        ),
    })
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

/// This rank among those of its machine, where a launcher says so.
pub fn local() -> Option<usize> {
    LOCAL.get().copied().flatten()
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
