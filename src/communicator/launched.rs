//! What a launcher says of this process, in its environment: torchrun (and what sets the same variables, as PyTorchJob of Kubernetes),
//! Open MPI's mpirun, or srun of Slurm.

use std::fmt;
use std::time::Duration;

use super::rendezvous::{Meeting, TIMEOUT};
use crate::error::{Error, Result};

/// The variable of the port on which rank 0 listens, where it is to be another one than the launcher's.
const PORT: &str = "SCRUBJAY_MASTER_PORT";
/// By default, until all have come, and within an exchange: another rank may write a large model meanwhile.
const COMING: Duration = Duration::from_secs(300);
const WITHIN: Duration = Duration::from_secs(1800);

/// A process that a launcher started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// Which one.
    pub by: Launcher,
    /// This rank, from 0.
    pub rank: usize,
    /// How many there are.
    pub size: usize,
    /// This rank among those of its machine, where the launcher says so.
    pub local: Option<usize>,
}

/// What started the ranks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// torchrun.
    Torchrun,
    /// Open MPI.
    Mpirun,
    /// Slurm.
    Srun,
}

impl fmt::Display for Launcher {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Launcher::Torchrun => "torchrun",
            Launcher::Mpirun => "mpirun",
            Launcher::Srun => "srun",
        })
    }
}

/// The variables of rank, size and local rank. A script of sbatch has some of Slurm's too, but not the last, which each step has.
const VARIABLES: [(Launcher, [&str; 3], Option<&str>); 3] = [
    (Launcher::Torchrun, ["RANK", "WORLD_SIZE", "LOCAL_RANK"], None),
    (Launcher::Mpirun, ["OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"], None),
    (Launcher::Srun, ["SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"], Some("SLURM_STEP_ID")),
];

/// The value of a variable of the environment.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The value of a variable as a number, where it is set.
fn number(environment: &Environment, name: &str) -> Result<Option<u64>> {
    let Some(text) = environment(name) else { return Ok(None) };
    let found = text.trim().parse().map(Some);
    found
        .map_err(|_| Error::config(format!("the environment has {name}={text}, where a number was expected")))
}

impl Launched {
    /// What the environment says; none where no launcher started this process.
    ///
    /// # Errors
    /// Where a variable is no number, or a rank is none of those that there are.
    pub fn of(environment: &Environment) -> Result<Option<Launched>> {
        for (by, [rank, size, local], beside) in VARIABLES {
            if beside.is_some_and(|name| environment(name).is_none()) {
                continue;
            }
            let (Some(r), Some(s)) = (number(environment, rank)?, number(environment, size)?) else {
                continue;
            };
            if r >= s {
                return Err(Error::config(format!(
                    "the environment has {rank}={r} and {size}={s}, from {by}"
                )));
            }
            let local = number(environment, local)?.map(|local| local as usize);
            return Ok(Some(Launched { by, rank: r as usize, size: s as usize, local }));
        }
        Ok(None)
    }

    /// Where the ranks meet over TCP, if the environment says where.
    ///
    /// # Errors
    /// Where it has one part of that alone, or a variable is no number.
    pub fn meeting(&self, environment: &Environment) -> Result<Option<Meeting>> {
        let port = number(environment, "MASTER_PORT")?;
        let (host, port) = match (environment("MASTER_ADDR"), port) {
            (Some(host), Some(port)) => (host, port),
            (None, None) => return Ok(None),
            (host, _) => {
                let (there, missing) = match host {
                    Some(_) => ("MASTER_ADDR", "MASTER_PORT"),
                    None => ("MASTER_PORT", "MASTER_ADDR"),
                };
                return Err(Error::config(format!("the environment has {there} and no {missing}")));
            }
        };
        // An agent of torchrun listens on the port itself.
        let taken = environment("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let port = number(environment, PORT)?.unwrap_or(port + u64::from(taken));
        let port = u16::try_from(port).ok().filter(|&port| port > 0);
        let port = port.ok_or_else(|| {
            Error::config(format!("no port from 1 to 65535 follows MASTER_PORT; {PORT} sets one"))
        })?;
        let seconds = number(environment, TIMEOUT)?.map(Duration::from_secs);
        let run = environment("TORCHELASTIC_RUN_ID").unwrap_or_default();
        Ok(Some(Meeting {
            rank: self.rank,
            size: self.size,
            host,
            port,
            job: run,
            coming: seconds.unwrap_or(COMING),
            within: seconds.unwrap_or(WITHIN),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &[(&str, &str)]) -> Result<(Option<Launched>, Option<Meeting>)> {
        let environment = |name: &str| {
            let found = variables.iter().find(|(other, _)| *other == name);
            found.map(|(_, value)| value.to_string())
        };
        let launched = Launched::of(&environment)?;
        let meeting = launched.as_ref().map(|launched| launched.meeting(&environment)).transpose()?;
        Ok((launched, meeting.flatten()))
    }

    #[test]
    fn what_launchers_say_is_read_and_what_they_do_not_say_is_refused() {
        let torchrun = [
            ("RANK", "3"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("MASTER_ADDR", "node7"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RUN_ID", "of today"),
        ];
        let (launched, meeting) = found(&torchrun).unwrap();
        let expected = Launched { by: Launcher::Torchrun, rank: 3, size: 8, local: Some(1) };
        assert_eq!(launched, Some(expected));
        let meeting = meeting.unwrap();
        assert_eq!((&meeting.host[..], meeting.port, &meeting.job[..]), ("node7", 29501, "of today"));
        // Without an agent the port is free; and it can be another one.
        assert_eq!(found(&torchrun[..5]).unwrap().1.unwrap().port, 29500);
        let other = [&torchrun[..], &[(PORT, "4000"), (TIMEOUT, "7")]].concat();
        let meeting = found(&other).unwrap().1.unwrap();
        assert_eq!((meeting.port, meeting.within), (4000, Duration::from_secs(7)));
        let mpirun = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let (launched, meeting) = found(&mpirun).unwrap();
        assert!(launched.unwrap().by == Launcher::Mpirun && meeting.is_none());
        let srun = [("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "4"), ("SLURM_STEP_ID", "0")];
        assert_eq!(found(&srun).unwrap().0.unwrap().size, 4);
        assert_eq!(found(&srun[..2]).unwrap().0, None, "a script of sbatch is one process");
        assert_eq!(found(&[("RANK", "3")]).unwrap().0, None);
        for (variables, word) in [
            (vec![("RANK", "8"), ("WORLD_SIZE", "8")], "RANK=8"),
            (vec![("RANK", "a"), ("WORLD_SIZE", "8")], "RANK=a"),
            (torchrun[..4].to_vec(), "no MASTER_PORT"),
            ([&torchrun[..3], &torchrun[4..5]].concat(), "no MASTER_ADDR"),
            ([&torchrun[..4], &[("MASTER_PORT", "70000")]].concat(), PORT),
        ] {
            let error = found(&variables).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
