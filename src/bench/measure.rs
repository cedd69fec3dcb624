//! How long a run takes: on the CPU by the clock, on CUDA by events in the stream.

use std::time::{Duration, Instant};

use super::case::{Timing, Work};
use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda};
use crate::error::Result;
use crate::ops::Strided;
use crate::ops::cuda::shape;

/// Bytes over which inputs rotate, more than any cache holds.
const ROTATE: usize = 256 << 20;

/// How many inputs of `bytes` rotate.
pub(super) fn rotation(bytes: usize) -> usize {
    (ROTATE / bytes.max(1)).clamp(1, 16)
}

/// The least number of runs and seconds, unless that takes longer than [`LONGEST`].
const SAMPLES: usize = 11;
const SHORTEST: Duration = Duration::from_millis(300);
const LONGEST: Duration = Duration::from_secs(10);

/// Times `work`, after one run that warms it up.
///
/// # Errors
/// Where a run fails.
pub fn measure(device: &Device, work: &mut Work) -> Result<Timing> {
    work.kernel.timed(&|run| repeat(device, run))
}

/// Times what it is given, after one run that warms it up.
pub(super) fn repeat(device: &Device, run: &mut dyn FnMut(usize) -> Result<()>) -> Result<Timing> {
    run(0)?;
    let mut flush = device.cuda().map(Flush::new).transpose()?;
    let started = Instant::now();
    let mut seconds = vec![];
    while (seconds.len() < SAMPLES || started.elapsed() < SHORTEST)
        && (seconds.len() < 3 || started.elapsed() < LONGEST)
    {
        let i = seconds.len() + 1;
        seconds.push(match &mut flush {
            Some(flush) => {
                flush.run()?;
                let before = flush.cuda.event()?;
                run(i)?;
                flush.cuda.event()?.since(&before)?.as_secs_f64()
            }
            None => {
                let before = Instant::now();
                run(i)?;
                before.elapsed().as_secs_f64()
            }
        });
    }
    seconds.sort_by(f64::total_cmp);
    let at = |share: f64| seconds[(share * (seconds.len() - 1) as f64).round() as usize];
    Ok(Timing { samples: seconds.len(), median: at(0.5), least: seconds[0], quartiles: [at(0.25), at(0.75)] })
}

/// Memory of twice the size of the L2 cache: writing it evicts all inputs.
struct Flush<'a> {
    cuda: &'a Cuda,
    scratch: Buffer<f32>,
    zero: Buffer<f32>,
}

impl<'a> Flush<'a> {
    fn new(cuda: &'a Cuda) -> Result<Flush<'a>> {
        let scratch = cuda.alloc((2 * cuda.cache()? / size_of::<f32>()).max(1))?;
        Ok(Flush { cuda, scratch, zero: cuda.upload(&[0.0])? })
    }

    fn run(&mut self) -> Result<()> {
        let (len, to, from) =
            (self.scratch.len(), Strided { first: 0, stride: 1 }, Strided { first: 0, stride: 0 });
        shape::copy(self.cuda, self.scratch.output(), self.zero.input(), len, 1, to, from)
    }
}
