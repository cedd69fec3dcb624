//! What the examples of removals share: samples removed from a model by both methods, beside a model that was retrained, a random
//! block and no update; a table, and a picture of it.
//!
//! Models are trained into `target/examples/NAME` and kept there: an example that is stopped goes on when it is started again.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use scrubjay::checkpoint::Checkpoint;
use scrubjay::data::Samples;
use scrubjay::data::tensors::write_whole;
use scrubjay::net::Network;
use scrubjay::observe::evaluate;
use scrubjay::select::Method;
use scrubjay::task::Procedure;
use scrubjay::training::{TrainOptions, Training};
use scrubjay::{Device, Error, Pick, Request, Result, ScrubOptions, Session, Sources};

/// Models of one kind, and what is removed from them.
pub struct Removals {
    /// What the folder and the picture are called.
    pub name: &'static str,
    /// Training and validation data, and how they are read.
    pub sources: Sources,
    /// Samples that no model sees.
    pub test: PathBuf,
    /// As `--arch` of `scrubjay train`.
    pub arch: &'static str,
    pub options: TrainOptions,
    pub seeds: u64,
    /// A title and the samples, as `--forget` has them, for each removal.
    pub removals: Vec<(&'static str, &'static str)>,
}

/// How one model does: accuracies in per cent on the forgotten, the retained and the test samples, without those of a class that goes;
/// the loss of the forgotten.
#[derive(Clone, Copy, Default)]
struct Row {
    forget: f64,
    loss: f64,
    retain: f64,
    test: f64,
}

const NAMES: [&str; 5] =
    ["no update", "hold", "L-CODEC, voted block", "L-CODEC, random block", "retrained without them"];

/// A file of the data, below the folder that `SCRUBJAY_DATA` names.
pub fn data(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os("SCRUBJAY_DATA").ok_or_else(|| {
        Error::config("SCRUBJAY_DATA has to name the folder of the data (docs/EXAMPLES.md)")
    })?;
    let path = Path::new(&folder).join(name);
    match path.exists() {
        true => std::path::absolute(&path).map_err(Error::io(&path)),
        false => Err(Error::config(format!(
            "{}: is not there; SCRUBJAY_DATA names the folder of the data",
            path.display()
        ))),
    }
}

/// The folder of an example, which is made if need be.
pub fn folder(name: &str) -> Result<PathBuf> {
    let folder = Path::new("target/examples").join(name);
    std::fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    Ok(folder)
}

/// Writes a file of lines, and returns its path.
#[allow(dead_code)] // not every example has lists
pub fn lines(path: PathBuf, lines: impl IntoIterator<Item = String>) -> Result<PathBuf> {
    let text: String = lines.into_iter().map(|line| line + "\n").collect();
    write_whole(&path, text.as_bytes())?;
    Ok(path)
}

impl Removals {
    /// Trains, removes, retrains, and prints a table for each removal.
    pub fn compare(&self) -> Result<()> {
        let mut picture = Picture::default();
        for &(title, forget) in &self.removals {
            let seeds = (0..self.seeds).map(|seed| self.rows(forget, seed)).collect::<Result<Vec<_>>>()?;
            println!("\n{title}, {} seed{}\n", self.seeds, if self.seeds == 1 { "" } else { "s" });
            println!("| | accuracy on the forgotten | their loss | retained | test | gap |");
            println!("| --- | --- | --- | --- | --- | --- |");
            let spread = |of: &dyn Fn(usize) -> f64, digits: usize| {
                let values: Vec<f64> = (0..seeds.len()).map(of).collect();
                let n = values.len() as f64;
                let mean = values.iter().sum::<f64>() / n;
                let square = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0);
                if n > 1.0 {
                    format!("{mean:.digits$} ± {:.digits$}", square.sqrt())
                } else {
                    format!("{mean:.digits$}")
                }
            };
            for (i, name) in NAMES.iter().enumerate() {
                let gap = |seed: usize| {
                    let (own, other) = (seeds[seed][i], seeds[seed][NAMES.len() - 1]);
                    let differences =
                        [own.forget - other.forget, own.retain - other.retain, own.test - other.test];
                    differences.iter().map(|d: &f64| d.abs()).sum::<f64>() / 3.0
                };
                let gap = if i + 1 < NAMES.len() { spread(&gap, 1) } else { String::new() };
                println!(
                    "| {name} | {} % | {} | {} % | {} % | {gap} |",
                    spread(&|seed| seeds[seed][i].forget, 1),
                    spread(&|seed| seeds[seed][i].loss, 2),
                    spread(&|seed| seeds[seed][i].retain, 1),
                    spread(&|seed| seeds[seed][i].test, 1),
                );
            }
            picture.panel(title, &seeds);
        }
        let path = folder(self.name)?.join(format!("{}.svg", self.name));
        write_whole(&path, picture.svg().as_bytes())?;
        println!("\npicture: {}", path.display());
        Ok(())
    }

    /// Every model of one seed.
    fn rows(&self, forget: &str, seed: u64) -> Result<[Row; 5]> {
        let model = self.trained(None, seed)?;
        let sources = Sources { model: model.clone(), ..self.sources.clone() };
        let test = sources.load(&self.test, &Checkpoint::open(&model)?)?.samples;
        let session = Session::open(Device::cpu()?, sources)?;
        let measure = |net: &Network, request: &Request| row(&session, &test, net, request);
        let lcodec = |selection| ScrubOptions {
            method: Some(Procedure::Lcodec),
            selection: Some(selection),
            ..options()
        };
        let mut rows = [Row::default(); 5];
        let all = [
            ScrubOptions { method: Some(Procedure::Hold), ..options() },
            lcodec(Method::Vote),
            lcodec(Method::Random),
        ];
        for (i, options) in all.into_iter().enumerate() {
            let mut request = Request::new(&session, Pick::from(forget), &options)?;
            request.batch = request.forget.len();
            let scrubbed = session.scrub(&request)?.network;
            rows[i + 1] = measure(&scrubbed, &request)?;
            rows[0] = measure(session.network(), &request)?;
            if i == 0 {
                let retrained = self.trained(Some(forget), seed)?;
                let sources = Sources { model: retrained, ..self.sources.clone() };
                rows[4] = measure(Session::open(Device::cpu()?, sources)?.network(), &request)?;
            }
            eprintln!("{}: seed {seed}: {} done", self.name, NAMES[i + 1]);
        }
        Ok(rows)
    }

    /// The folder of a model that was trained.
    fn trained(&self, exclude: Option<&str>, seed: u64) -> Result<PathBuf> {
        let without = exclude.map_or("trained".into(), |spec| {
            format!("without-{}", spec.replace(|c: char| !c.is_ascii_alphanumeric(), "-"))
        });
        let out = folder(self.name)?.join(format!("{without}-{seed}"));
        let options = TrainOptions { seed, ..self.options.clone() };
        let training = Training::open(
            Device::cpu()?,
            self.sources.clone(),
            Some(self.arch),
            exclude.map(Pick::from),
            options,
        )?;
        training.run(seed, &out, &[], &mut |_| Ok(()))?;
        Ok(out)
    }
}

/// Every removal is shown, also one that costs accuracy.
fn options() -> ScrubOptions {
    ScrubOptions { gate: 1.0, ..ScrubOptions::DEFAULT }
}

fn row(session: &Session, test: &Samples, net: &Network, request: &Request) -> Result<Row> {
    let samples = session.samples();
    let class = samples.y.class_of(request.forget[0]);
    let rest: Vec<usize> =
        (0..samples.y.len()).filter(|i| request.forget.binary_search(i).is_err()).collect();
    let gone = class.filter(|_| !rest.iter().any(|&i| samples.y.class_of(i) == class));
    let others: Vec<usize> =
        (0..test.y.len()).filter(|&i| gone.is_none() || test.y.class_of(i) != gone).collect();
    let forgotten = evaluate(session.device(), net, &samples.subset(&request.forget))?;
    let accuracy = |of: &Samples, indices: &[usize]| -> Result<f64> {
        Ok(100.0 * evaluate(session.device(), net, &of.subset(indices))?.accuracy())
    };
    Ok(Row {
        forget: 100.0 * forgotten.accuracy(),
        loss: forgotten.mean_loss(),
        retain: accuracy(samples, &rest)?,
        test: accuracy(test, &others)?,
    })
}

/// A panel for each removal: for each model a dot a seed, for the accuracy on the forgotten and on the test samples.
#[derive(Default)]
struct Picture {
    body: String,
    height: f64,
}

const LEFT: f64 = 170.0;
const WIDE: f64 = 430.0;

impl Picture {
    fn panel(&mut self, title: &str, seeds: &[[Row; 5]]) {
        let (top, step, out) = (self.height + 44.0, 24.0, &mut self.body);
        let bottom = top + step * NAMES.len() as f64;
        let at = |percent: f64| LEFT + WIDE * percent / 100.0;
        let _ = writeln!(out, "<text x=\"12\" y=\"{:.0}\" class=\"title\">{title}</text>", top - 18.0); // a String takes all
        for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
            let x = at(percent);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{x:.1}\" y1=\"{top:.0}\" x2=\"{x:.1}\" y2=\"{bottom:.0}\"/>"
            );
            let y = bottom + 14.0;
            let _ = writeln!(out, "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.0}\">{percent:.0} %</text>");
        }
        for (i, name) in NAMES.iter().enumerate() {
            let y = top + step * (i as f64 + 0.5);
            let _ = writeln!(out, "<text x=\"12\" y=\"{:.0}\">{name}</text>", y + 4.0);
            for rows in seeds {
                for (class, value, up) in [("forgotten", rows[i].forget, -3.0), ("test", rows[i].test, 3.0)] {
                    let (x, y) = (at(value), y + up);
                    let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\"/>");
                }
            }
        }
        self.height = bottom + 24.0;
    }

    fn svg(&self) -> String {
        let height = self.height + 30.0;
        let key = self.height + 18.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0:.0} {height:.0}\" width=\"{0:.0}\" font-family=\"sans-serif\" \
             font-size=\"12\" role=\"img\">\n<style>.title {{ font-weight: bold }} .grid {{ stroke: #ccc }} .tick {{ fill: #555; \
             text-anchor: middle }} .forgotten {{ fill: #c2410c; fill-opacity: .75 }} .test {{ fill: #1d4ed8; fill-opacity: .75 \
             }}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n{1}<circle class=\"forgotten\" cx=\"{2:.0}\" \
             cy=\"{key:.0}\" r=\"4\"/><text x=\"{3:.0}\" y=\"{4:.0}\">accuracy on the forgotten samples</text>\n<circle class=\"test\" \
             cx=\"{5:.0}\" cy=\"{key:.0}\" r=\"4\"/><text x=\"{6:.0}\" y=\"{4:.0}\">on test samples</text>\n</svg>\n",
            LEFT + WIDE + 30.0,
            self.body,
            LEFT,
            LEFT + 10.0,
            key + 4.0,
            LEFT + 240.0,
            LEFT + 250.0,
        )
    }
}
