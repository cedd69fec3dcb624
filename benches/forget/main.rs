//! The forgetting table: scrubjay beside other methods, each against models retrained without the forgotten samples
//! (docs/MEASUREMENTS.md says what is measured and how the others are tuned).
//!
//! ```text
//! cargo bench --bench forget -- --data DIR --out DIR [--setup A,B,N,C,M] [--seeds 3] [--draws 6] [--methods PART,..]
//!     [--threads 1]
//! cargo bench --bench forget -- --quick --out DIR
//! ```
//!
//! Every finished cell is a line of `DIR/cells.jsonl`; the same command goes on after the last one. `--quick` is a small
//! cut on the digits that ship with scrubjay. The table goes to stdout and `DIR/table.md`.

mod answers;
mod descent;
mod many;
mod rivals;
mod setups;
mod table;

use std::cell::RefCell;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use scrubjay::block::Block;
use scrubjay::device::{Choice, Device};
use scrubjay::net::Network;
use scrubjay::verify;
use serde::{Deserialize, Serialize};

use setups::{Case, Data, Measured, REFERENCE_SEED, Request, Setup};

/// One finished cell.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cell {
    /// Letter of the set-up.
    pub setup: String,
    /// Name of the request.
    pub request: String,
    /// Name of the method; `retrained` for a reference.
    pub method: String,
    /// Its setting.
    pub setting: String,
    /// Which draw of the request.
    pub draw: u64,
    /// Of the original and of the method; of a reference its number.
    pub seed: u64,
    /// What a method has to say.
    pub note: String,
    /// Distance to the retrained weights over that before, for a convex model.
    pub distance: Option<f64>,
    /// What the model does.
    pub measured: Measured,
    /// Seconds of the method.
    pub seconds: f64,
    /// Seconds of one epoch of training: of a retrained network its own mean, else one epoch's.
    pub epoch: f64,
}

/// Name of the retrained models' cells.
pub const RETRAINED: &str = "retrained";

/// What was asked for.
pub struct Options {
    setups: Vec<char>,
    /// Originals per set-up.
    pub seeds: u64,
    /// Draws of each random request.
    draws: u64,
    methods: Vec<String>,
    /// A small cut, on data that ship with scrubjay.
    pub quick: bool,
    /// Where cells and table go.
    pub out: PathBuf,
    data: Option<PathBuf>,
    threads: usize,
}

impl Options {
    fn parse() -> anyhow::Result<Option<Options>> {
        let mut options = Options {
            setups: vec!['A', 'B', 'N', 'C', 'M'],
            seeds: 3,
            draws: 6,
            methods: vec![],
            quick: false,
            out: PathBuf::from("target/forget"),
            data: std::env::var_os("SCRUBJAY_DATA").map(PathBuf::from),
            threads: 1,
        };
        let (mut bench, mut seeds, mut draws) = (false, None, None);
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            let mut value = || args.next().with_context(|| format!("{arg} takes a value"));
            match arg.as_str() {
                "--bench" => bench = true,
                "--quick" => options.quick = true,
                "--setup" => {
                    options.setups = value()?.split(',').flat_map(|part| part.chars().next()).collect()
                }
                "--seeds" => seeds = Some(value()?.parse().context("--seeds")?),
                "--draws" => draws = Some(value()?.parse().context("--draws")?),
                "--methods" => options.methods = value()?.split(',').map(str::to_string).collect(),
                "--out" => options.out = value()?.into(),
                "--data" => options.data = Some(value()?.into()),
                "--threads" => options.threads = value()?.parse().context("--threads")?,
                _ => bail!("{arg} is no option; benches/forget/main.rs lists them"),
            }
        }
        options.seeds = seeds.unwrap_or(if options.quick { 1 } else { 3 });
        options.draws = draws.unwrap_or(if options.quick { 2 } else { 6 });
        if options.quick {
            options.data = None;
        } else if options.data.is_none() && bench {
            bail!("--data (or SCRUBJAY_DATA) names the folder that has mnist/; --quick needs none");
        }
        Ok(bench.then_some(options))
    }

    /// Whether a method is wanted: it was named, or a part of its name that is no method's whole name.
    pub fn wants(&self, method: &str) -> bool {
        let whole = |part: &String| rivals::methods().iter().any(|method| method.name == part);
        let named = |part: &String| part == method || (!whole(part) && method.contains(part));
        method == "none" || self.methods.is_empty() || self.methods.iter().any(named)
    }
}

/// The cells on disk.
pub struct Cells {
    /// All of them, in the order of their making.
    pub all: Vec<Cell>,
    path: PathBuf,
}

impl Cells {
    /// Reads what there is; a line that was not finished is dropped.
    fn open(options: &Options) -> anyhow::Result<Cells> {
        std::fs::create_dir_all(&options.out)?;
        let path = options.out.join("cells.jsonl");
        let header = serde_json::json!({"version": 2, "quick": options.quick}).to_string();
        let text = if path.exists() { std::fs::read_to_string(&path)? } else { String::new() };
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut lines = text[..whole].lines();
        match lines.next() {
            None => std::fs::write(&path, format!("{header}\n"))?,
            Some(first) if first == header => std::fs::write(&path, &text[..whole])?,
            Some(_) => bail!("{} was begun with other options; choose another --out", path.display()),
        }
        let all = lines.map(|line| serde_json::from_str(line).with_context(|| format!("{}", path.display())));
        Ok(Cells { all: all.collect::<anyhow::Result<_>>()?, path })
    }

    /// Whether this cell is there.
    pub fn has(
        &self,
        setup: &str,
        request: &str,
        method: &str,
        setting: &str,
        (draw, seed): (u64, u64),
    ) -> bool {
        self.all.iter().any(|cell| {
            cell.setup == setup
                && cell.request == request
                && cell.method == method
                && cell.setting == setting
                && (cell.draw, cell.seed) == (draw, seed)
        })
    }

    /// Adds a cell, on disk first.
    pub fn push(&mut self, cell: Cell) -> anyhow::Result<()> {
        let mut file = OpenOptions::new().append(true).open(&self.path)?;
        file.write_all(format!("{}\n", serde_json::to_string(&cell)?).as_bytes())?;
        file.sync_data()?;
        eprintln!(
            "{} {}, draw {}, seed {}: {} {} {:.2} s {}",
            cell.setup,
            cell.request,
            cell.draw,
            cell.seed,
            cell.method,
            cell.setting,
            cell.seconds,
            cell.note
        );
        self.all.push(cell);
        Ok(())
    }
}

/// A set-up with its data, and the models that were made last.
pub struct Lab {
    device: Device,
    /// The set-up.
    pub setup: Setup,
    /// Its samples.
    pub data: Data,
    original: Option<(u64, Network)>,
    /// Of a convex model: the retrained model of the last request.
    reference: RefCell<Option<(Vec<usize>, Network)>>,
    epoch: Option<f64>,
}

impl Lab {
    fn new(device: Device, setup: Setup, folder: Option<&Path>) -> anyhow::Result<Lab> {
        let data = Data::of(&setup, folder)?;
        Ok(Lab { device, setup, data, original: None, reference: RefCell::default(), epoch: None })
    }

    /// Makes the original of a seed, unless it was made before, and times an epoch.
    pub fn prepare(&mut self, seed: u64) -> anyhow::Result<()> {
        let seed = self.setup.original(seed);
        if self.epoch.is_none() {
            self.epoch = Some(self.setup.epoch_seconds(&self.device, &self.data)?);
        }
        if self.original.as_ref().is_none_or(|(at, _)| *at != seed) {
            let all: Vec<usize> = (0..self.data.train.y.len()).collect();
            self.original = Some((seed, self.setup.trained(&self.device, &self.data, &all, seed)?));
        }
        Ok(())
    }

    /// Seconds of an epoch.
    pub fn epoch(&self) -> f64 {
        self.epoch.unwrap_or(f64::NAN)
    }

    /// A request of these samples on the prepared original.
    pub fn case(&self, request: Request, forget: Vec<usize>, seed: u64) -> anyhow::Result<Case<'_>> {
        let (_, original) = self.original.as_ref().context("no original is prepared")?;
        let retain = self.data.others(&forget);
        Ok(Case {
            device: &self.device,
            setup: &self.setup,
            data: &self.data,
            original,
            request,
            forget,
            retain,
            seed,
        })
    }
}

fn main() -> anyhow::Result<()> {
    let Some(options) = Options::parse()? else { return Ok(()) }; // cargo test --benches: nothing to test
    let mut cells = Cells::open(&options)?;
    for &letter in &options.setups {
        let setup =
            Setup::of(letter, options.quick).with_context(|| format!("there is no set-up {letter}"))?;
        let device = Device::open(Choice::Cpu, options.threads)?;
        let mut lab = Lab::new(device, setup, options.data.as_deref())?;
        match letter {
            'M' => many::run(&options, &mut lab, &mut cells)?,
            _ => requests(&options, &mut lab, &mut cells)?,
        }
    }
    let text = table::markdown(&cells.all, options.quick);
    println!("{text}");
    std::fs::write(options.out.join("table.md"), text)?;
    Ok(())
}

/// All cells of a set-up but M.
fn requests(options: &Options, lab: &mut Lab, cells: &mut Cells) -> anyhow::Result<()> {
    for seed in 0..options.seeds {
        for request in lab.setup.requests.clone() {
            let draws = match request {
                _ if lab.setup.convex() => seed..seed + 1,
                Request::Random(_) => 0..options.draws,
                Request::Class(_) | Request::Wrong => 0..1,
            };
            for draw in draws {
                drawn(options, lab, cells, request, (draw, seed))?;
            }
        }
    }
    Ok(())
}

/// The cells of one draw of a request on one original: retrained models, which serve all originals, and the methods.
fn drawn(
    options: &Options,
    lab: &mut Lab,
    cells: &mut Cells,
    request: Request,
    (draw, seed): (u64, u64),
) -> anyhow::Result<()> {
    let (letter, name) = (lab.setup.letter.to_string(), request.name());
    let convex = lab.setup.convex();
    let forget = lab.data.request(request, draw);
    let references = match convex {
        true => seed..seed + 1,
        false if seed == 0 => 0..lab.setup.references as u64,
        false => 0..0,
    };
    for number in references {
        if cells.has(&letter, &name, RETRAINED, "", (draw, number)) {
            continue;
        }
        lab.prepare(seed)?;
        let case = lab.case(request, forget.clone(), seed)?;
        let start = Instant::now();
        let net = retrained(&case, number)?;
        let seconds = start.elapsed().as_secs_f64();
        cells.push(finish(lab, &case, RETRAINED, "", (draw, number), &net, (seconds, String::new()))?)?;
    }
    for method in rivals::methods() {
        if !rivals::applies(convex, method.how)
            || !options.wants(method.name)
            || cells.has(&letter, &name, method.name, method.setting, (draw, seed))
        {
            continue;
        }
        lab.prepare(seed)?;
        let case = lab.case(request, forget.clone(), seed)?;
        let start = Instant::now();
        let (net, note) = rivals::run(&case, method.how)?;
        let seconds = start.elapsed().as_secs_f64();
        let (name, setting) = (method.name, method.setting);
        cells.push(finish(lab, &case, name, setting, (draw, seed), &net, (seconds, note))?)?;
    }
    Ok(())
}

/// A model that never saw the request.
fn retrained(case: &Case, number: u64) -> scrubjay::Result<Network> {
    let seed = if case.setup.convex() { 0 } else { REFERENCE_SEED + number };
    case.setup.trained(case.device, case.data, &case.retain, seed)
}

/// Measures what a method left.
pub fn finish(
    lab: &Lab,
    case: &Case,
    method: &str,
    setting: &str,
    (draw, seed): (u64, u64),
    net: &Network,
    (seconds, note): (f64, String),
) -> anyhow::Result<Cell> {
    let distance = match case.setup.convex() && method != RETRAINED {
        true => {
            let mut last = lab.reference.borrow_mut();
            let (_, reference) = match last.take().filter(|(forget, _)| *forget == case.forget) {
                Some(reference) => last.insert(reference),
                None => last.insert((case.forget.clone(), retrained(case, seed)?)),
            };
            let all = Block::all(net)?;
            let values = |net: &Network| all.values(net);
            Some(verify::weight_distance(&values(net), &values(case.original), &values(reference))?)
        }
        false => None,
    };
    Ok(Cell {
        setup: case.setup.letter.to_string(),
        request: case.request.name(),
        method: method.into(),
        setting: setting.into(),
        draw,
        seed,
        note,
        distance,
        measured: case.measure(net)?,
        seconds,
        epoch: match lab.setup.epochs {
            epochs if epochs > 0 && method == RETRAINED => seconds / epochs as f64,
            _ => lab.epoch(),
        },
    })
}
