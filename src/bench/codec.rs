//! Cases of the dependence measure: whole selections, one step, and the search of a step alone.

use super::case::{Check, Kernel, Sizes, Timer, Timing, Work};
use super::map::{LOOKED_AT, normals, work};
use crate::codec::{Again, Columns, FociOptions, foci, statistic};
use crate::device::Device;
use crate::device::cuda::{Buffer, Cuda};
use crate::error::Result;
use crate::ops::cuda::nearest;

/// Whole selections, of columns that make up Y.
struct Selection {
    device: Device,
    y: Vec<f64>,
    x: Vec<f64>,
    sizes: [usize; 3],
}

impl Selection {
    fn select(&self) -> Result<crate::codec::Foci> {
        let [n, p, k] = self.sizes;
        let options = FociOptions { all: true, max_features: Some(k), ..Default::default() };
        foci(&self.device, &self.y, &Columns::from_columns_f64(&self.x, n, p)?, &options)
    }
}

impl Kernel for Selection {
    fn run(&mut self, _: usize) -> Result<()> {
        self.select().map(drop)
    }

    /// The last step's T is that of a k-d tree over its columns.
    fn check(&mut self) -> Result<Check> {
        let [n, p, _] = self.sizes;
        let found = self.select()?;
        let last = found.order.len() - 1;
        let (before, z) = found.order.split_at(last);
        let data = Columns::from_columns_f64(&self.x, n, p)?;
        let tree = statistic(&Device::cpu()?, &self.y, &data, z, before, &Default::default())?.value;
        let error = match (found.conditional[last], tree) {
            (Some(step), Some(tree)) => (step - tree).abs(),
            (step, tree) => f64::from(u8::from(step != tree)),
        };
        Ok(Check { error, tolerance: 1e-12 })
    }
}

pub(super) fn selected(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, p, k] = std::array::from_fn(|i| sizes[i]);
    let x: Vec<f64> = normals(n * p, 0).into_iter().map(f64::from).collect();
    let y = (0..n).map(|i| (0..k.min(p)).map(|j| (j + 1) as f64 * x[j * n + i]).sum()).collect();
    let kernel = Selection { device: device.clone(), y, x, sizes: [n, p, k.min(p)] };
    work(8 * n * p * k, 0, Box::new(kernel))
}

/// The search of one step: the nearest rows by the chosen columns and each candidate.
struct Search {
    cuda: Cuda,
    x: Vec<f64>, // [p + k, n], those chosen last
    sizes: [usize; 3],
    columns: nearest::Candidates,
    distance: Buffer<f64>,
    rank: Buffer<u32>,
    len: Option<u32>,
}

impl Search {
    fn search(&self) -> Result<nearest::Nearest> {
        let (n, tied) = (self.sizes[0], nearest::Tied::All);
        let Some(len) = self.len else {
            return nearest::nearest(&self.cuda, &self.columns, &self.distance, 0..n, &self.rank, tied);
        };
        let mut tally = nearest::Tally::new(&self.cuda)?;
        let distance = self.distance.input();
        let lists = nearest::lists(&self.cuda, distance, n, 0..n, len)?;
        nearest::pruned(&self.cuda, &mut tally, &self.columns, distance, &lists, &self.rank, tied)
    }
}

impl Kernel for Search {
    fn run(&mut self, _: usize) -> Result<()> {
        self.search().map(drop)
    }

    fn check(&mut self) -> Result<Check> {
        let [n, p, _] = self.sizes;
        let (candidates, chosen) = self.x.split_at(p * n);
        let found = self.cuda.download(&self.search()?.sum)?;
        let wrong = |&at: &usize| {
            let (i, column) = (at % n, &candidates[at / n * n..][..n]);
            let all = || chosen.chunks(n).chain([column]);
            let distance = |j: usize| all().fold(0.0, |sum, x| sum + (x[i] - x[j]) * (x[i] - x[j]));
            let best = (0..n).filter(|j| *j != i).map(distance).fold(f64::INFINITY, f64::min);
            let tied = (0..n).filter(|j| *j != i && distance(*j) == best);
            found[at] != tied.map(|j| (i.min(j) + 1) as u64).sum::<u64>()
        };
        let error = (0..n * p).step_by((n * p / LOOKED_AT).max(1)).filter(wrong).count();
        Ok(Check { error: error as f64, tolerance: 0.0 })
    }
}

pub(super) fn search(device: &Device, sizes: Sizes, pruned: bool) -> Result<Work> {
    let [n, p, k] = std::array::from_fn(|i| sizes[i]);
    let cuda =
        device.cuda().ok_or_else(|| crate::error::Error::config("a step alone has no path on the CPU"))?;
    let x: Vec<f64> = normals(n * (p + k), 0).into_iter().map(f64::from).collect();
    let columns = nearest::Candidates::new(cuda, cuda.upload(&x[..n * p])?, n)?;
    let mut distance = cuda.alloc(n * n)?;
    let chosen = cuda.upload(&x[n * p..])?;
    nearest::distance(cuda, &mut distance, chosen.input(), n, 0..n, 0..n, true)?;
    let rank = cuda.upload(&(1..=n as u32).collect::<Vec<u32>>())?;
    let visited = 8.0 * (n as f64).powf(1.0 / (k + 1) as f64); // as in a selection
    let len = pruned.then(|| nearest::list_len(visited as usize));
    let search = Search { cuda: cuda.clone(), x, sizes: [n, p, k], columns, distance, rank, len };
    work(8 * n * (n + p) + 12 * n * p, 0, Box::new(search))
}

/// A step of a selection on CUDA, with k columns chosen.
struct Step {
    cuda: Cuda,
    y: Vec<f64>,
    x: Vec<f64>, // [p + k, n], those chosen last
    sizes: [usize; 3],
}

impl Step {
    fn again(&self) -> Result<Again<'_>> {
        let [n, p, _] = self.sizes;
        let (x, chosen) = self.x.split_at(n * p);
        Again::new(&self.cuda, &self.y, &Columns::from_columns_f64(x, n, p)?, chosen)
    }
}

impl Kernel for Step {
    fn run(&mut self, _: usize) -> Result<()> {
        self.again()?.step().map(drop)
    }

    fn check(&mut self) -> Result<Check> {
        let [n, p, _] = self.sizes;
        let mut again = self.again()?;
        let (best, found) = (again.step()?, again.all()?);
        let (x, chosen) = self.x.split_at(n * p);
        let rank: Vec<u64> =
            self.y.iter().map(|y| self.y.iter().filter(|of| *of <= y).count() as u64).collect();
        let (mut off, mut all) = (0.0, 0.0);
        for j in (0..p).step_by(p.div_ceil(LOOKED_AT)) {
            let columns = || chosen.chunks(n).chain([&x[j * n..][..n]]);
            let mut want = 0.0;
            for i in 0..n {
                let distance = |j: usize| columns().fold(0.0, |sum, x| sum + (x[i] - x[j]) * (x[i] - x[j]));
                let near = (0..n).filter(|j| *j != i).map(distance).fold(f64::INFINITY, f64::min);
                let tied: Vec<u64> = (0..n)
                    .filter(|j| *j != i && distance(*j) == near)
                    .map(|j| rank[i].min(rank[j]))
                    .collect();
                want += tied.iter().sum::<u64>() as f64 / tied.len() as f64;
            }
            (off, all) = (off + (found[j] - want).powi(2), all + want * want);
        }
        let largest = found.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let right = best.is_some_and(|best| found[best] == largest);
        Ok(Check { error: if right { (off / all).sqrt() } else { f64::NAN }, tolerance: 1e-12 })
    }

    fn timed(&mut self, timer: &Timer) -> Result<Timing> {
        let mut again = self.again()?;
        timer(&mut |_| again.step().map(drop))
    }
}

pub(super) fn foci_step(device: &Device, sizes: Sizes) -> Result<Work> {
    let [n, p, k] = std::array::from_fn(|i| sizes[i]);
    let cuda =
        device.cuda().ok_or_else(|| crate::error::Error::config("a step alone has no path on the CPU"))?;
    let [y, x] =
        [(n, 1), (n * (p + k), 0)].map(|(len, i)| normals(len, i).into_iter().map(f64::from).collect());
    work(8 * n * (p + k), 0, Box::new(Step { cuda: cuda.clone(), y, x, sizes: [n, p, k] }))
}
