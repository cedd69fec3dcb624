//! Several GPUs of one machine as one device: each is a rank in a thread of its own ([`Communicator::beside`]), with a context, memory
//! and host threads of its own. What is shared begins with [`Device::together`]; all else runs on the first of them, to the same bits.

use super::{Choice, Device, cuda, pool};
use crate::communicator::Communicator;
use crate::error::{Error, Result};

impl Device {
    /// Opened GPUs, each with its number, as one device that shares its work between them; one of them is itself.
    ///
    /// # Errors
    /// Where there are none, one is no GPU, or they are not of one kind: their roundings differ.
    pub fn several(gpus: Vec<(usize, Device)>) -> Result<Device> {
        let Some((number, first)) = gpus.first().cloned() else {
            return Err(Error::config("a device of no GPUs"));
        };
        for (other, gpu) in &gpus {
            if gpu.cuda.is_none() {
                return Err(Error::config(format!("a device of several GPUs, where {other} is the CPU")));
            }
            if gpu.why != first.why {
                return Err(Error::config(format!(
                    "GPU {number} is {}, GPU {other} is {}; GPUs that share work must be of one kind: choose among them \
                     (--device cuda:{number}), or hide the others (CUDA_VISIBLE_DEVICES)",
                    first.why, gpu.why
                )));
            }
        }
        if gpus.len() == 1 {
            return Ok(first);
        }
        let threads = gpus.iter().map(|(_, gpu)| gpu.threads()).sum();
        let numbers: Vec<String> = gpus.iter().map(|(number, _)| number.to_string()).collect();
        let why = format!("GPUs {}, each {}", numbers.join(", "), first.why);
        Ok(Device { pool: pool(threads)?, why, several: gpus.into(), ..first })
    }

    /// The GPUs of these numbers; each has its part of so many threads, 0 of one per core.
    pub(super) fn on_gpus(numbers: &[usize], threads: usize) -> Result<Device> {
        let seen = cuda::list()?;
        if let Some(missing) = numbers.iter().find(|&&number| number >= seen.len()) {
            let reason = format!("GPU {missing} was asked for, and the driver shows {}", listed(&seen));
            return Err(Error::NoGpu { reason });
        }
        let all = match threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let of_each = if numbers.len() == 1 { threads } else { (all / numbers.len()).max(1) };
        let opened = numbers.iter().map(|&number| Ok((number, Device::on_gpu(number, of_each)?)));
        Device::several(opened.collect::<Result<_>>()?)
    }

    /// The device of one of several ranks that are processes: where it is a GPU, each takes one, that of its number among the ranks
    /// of its machine (`local`), or the only one that it sees. `threads` as of [`Device::open`].
    ///
    /// # Errors
    /// As [`Device::open`]; where a machine has more ranks than GPUs.
    pub fn of_rank(choice: Choice, local: Option<usize>, threads: usize) -> Result<Device> {
        if !matches!(choice, Choice::Auto | Choice::Cuda) {
            return Device::open(choice, threads);
        }
        match cuda::list() {
            Err(_) => Device::open(choice, threads), // says why there is none
            Ok(seen) => match (Device::on_gpu(number_of(local, &seen)?, threads), choice) {
                (Err(Error::NoGpu { reason }), Choice::Auto) => Device::on_cpu(threads, &reason),
                (opened, _) => opened,
            },
        }
    }

    /// So many emulated GPUs, for tests; see [`Device::emulated`].
    ///
    /// # Errors
    /// Where the threads cannot be started.
    #[cfg(feature = "emu")]
    pub fn emulated_several(seed: u64, count: usize) -> Result<Device> {
        let gpus = (0..count).map(|number| Ok((number, Device::emulated(seed)?)));
        Device::several(gpus.collect::<Result<_>>()?)
    }

    /// How many GPUs share its work; 1 where it is not several.
    pub fn count(&self) -> usize {
        self.several.len().max(1)
    }

    /// Does work that several GPUs share: all run the same program, `first` on the first of them in this thread, `others` on each
    /// of the others. With one device `first` does all.
    ///
    /// # Errors
    /// That of the GPU that failed, with its number.
    pub fn together<R>(
        &self,
        first: impl FnOnce(&Device) -> Result<R>,
        others: impl Fn(&Device) -> Result<()> + Sync,
    ) -> Result<R> {
        if self.several.is_empty() {
            return first(self);
        }
        let own = |ranks: Communicator| {
            let (_, gpu) = &self.several[ranks.rank()];
            gpu.clone().among(ranks)
        };
        let (found, beside) = Communicator::beside(
            self.several.len(),
            |ranks| first(&own(ranks)?),
            |ranks| others(&own(ranks)?),
        );
        let Err(error) = found else { return found };
        // Where the first one heard of another's failure, that one's own words, which are in what it heard.
        let text = error.to_string();
        let failed = self.several[1..].iter().zip(beside).find_map(|((number, _), other)| {
            let other = other.err()?;
            text.contains(&other.to_string()).then(|| other.during(&format!("GPU {number}")))
        });
        let (number, _) = self.several[0];
        Err(failed.unwrap_or_else(|| error.during(&format!("GPU {number}"))))
    }

    /// [`Device::together`] where all GPUs do the same.
    ///
    /// # Errors
    /// As [`Device::together`].
    pub fn shared<R>(&self, work: impl Fn(&Device) -> Result<R> + Sync) -> Result<R> {
        self.together(&work, |device| work(device).map(drop))
    }

    /// Refuses GPUs that have less than so many bytes free.
    ///
    /// # Errors
    /// [`Error::Memory`] that names the GPU with the least.
    pub fn check_free(&self, bytes: usize, what: &str) -> Result<()> {
        let mut least: Option<(usize, usize)> = None;
        for (number, gpu) in self.several.iter() {
            let free = gpu.cuda().map_or(Ok(usize::MAX), cuda::Cuda::free)?;
            if free < bytes && least.is_none_or(|(_, other)| free < other) {
                least = Some((*number, free));
            }
        }
        let Some((number, free)) = least else { return Ok(()) };
        let remedy = "; leave it out of --device cuda:.., or end what else uses it".into();
        Err(Error::Memory { op: format!("{what} on GPU {number}"), bytes, free, remedy })
    }
}

/// GPUs by number and name.
fn listed(seen: &[String]) -> String {
    let names: Vec<String> = seen.iter().enumerate().map(|(i, name)| format!("{i} ({name})")).collect();
    names.join(", ")
}

/// The GPU of a rank, of those that the driver shows.
fn number_of(local: Option<usize>, seen: &[String]) -> Result<usize> {
    match (local, seen.len()) {
        (_, 1) => Ok(0), // each may see another one
        (Some(local), count) if local < count => Ok(local),
        (Some(local), _) => Err(Error::config(format!(
            "this is rank {local} of its machine (from 0), and the driver shows {}: start one rank for each GPU",
            listed(seen)
        ))),
        (None, _) => Err(Error::config(format!(
            "the launcher does not say which rank of its machine this is (LOCAL_RANK), and the driver shows {}",
            listed(seen)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::check_distinct;
    use super::*;

    #[test]
    fn every_rank_of_a_machine_has_a_gpu_of_its_own() {
        let seen = |count: usize| -> Vec<String> { (0..count).map(|i| format!("card {i}")).collect() };
        assert_eq!(number_of(Some(2), &seen(4)).unwrap(), 2);
        assert_eq!(number_of(Some(2), &seen(1)).unwrap(), 0);
        let error = number_of(Some(2), &seen(2)).unwrap_err().to_string();
        assert!(error.contains("rank 2") && error.contains("0 (card 0), 1 (card 1)"), "{error}");
        assert!(number_of(None, &seen(2)).unwrap_err().to_string().contains("LOCAL_RANK"));
        let uuids = |all: &[&str]| all.iter().map(|uuid| uuid.as_bytes().to_vec()).collect::<Vec<_>>();
        check_distinct(&uuids(&["GPU-1", "GPU-2", "", ""])).unwrap();
        let error = check_distinct(&uuids(&["GPU-1", "GPU-2", "GPU-1"])).unwrap_err().to_string();
        assert!(error.contains("ranks 0 and 2") && error.contains("GPU-1"), "{error}");
    }
}
