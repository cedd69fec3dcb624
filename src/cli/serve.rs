//! `scrubjay serve`: carry out removal requests from a queue.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use scrubjay::data::file::check_folder;
use scrubjay::options::{Pick, ScrubOptions};
use scrubjay::queue::{Metrics, Policy, QueueOptions, Responder, Served, Server};
use scrubjay::session::{Level, Session, Sources};

use super::method::MethodArgs;
use super::model::{ModelArgs, NormaliseArgs};
use super::shared::{self, DeviceArgs, Exit, command_line};

/// Carry out removal requests from a queue
///
/// A request is a JSON file in DIR/incoming (docs/SERVE.md has its form). Requests are carried out in batches. Each batch writes a
/// version of the model to DIR/versions, and DIR/current leads to the newest; each request gets a receipt in DIR/done or
/// DIR/refused. If the server is stopped or killed and started again, it ends with the same model. With --once, exit code 3
/// means that this run refused a request or did not remove its samples.
///
/// Examples:
///   scrubjay serve --model m.safetensors --data train.npz --val val.npz --spool queue
///   scrubjay serve --model m.safetensors --data train.npz --val val.npz --spool queue --once
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// The training data: class folders, .npz, .safetensors, .csv .. (docs/DATA.md), or what is left of it (with --n)
    #[arg(long, value_name = "TRAIN")]
    data: PathBuf,
    #[command(flatten)]
    normalise: NormaliseArgs,
    /// The folder of the queue; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    spool: PathBuf,
    /// Validation data that the model has not seen: forgotten samples are to look like these, and --gate is measured on them
    #[arg(long, value_name = "DATA")]
    val: Option<PathBuf>,
    /// The retained samples that are used, written as --forget of `scrub`; those that were forgotten are left out. By default all
    /// of them for a hold, else 1,024 at random
    #[arg(long, value_name = "SPEC")]
    retain: Option<String>,
    /// How many samples the model was trained on; by default as many as --data has
    #[arg(long, value_name = "N")]
    n: Option<usize>,
    /// Begin a batch of N requests when this many wait
    #[arg(long, value_name = "N", default_value_t = 100)]
    batch_count: usize,
    /// Begin a batch when a request has waited this long: 30s, 10m, 2h or 1d
    #[arg(long, value_name = "AGE", value_parser = shared::span, default_value = "10m")]
    batch_age: Duration,
    /// Keep the N newest versions of the model
    #[arg(long, value_name = "N", default_value_t = 3)]
    keep: usize,
    /// Carry out the requests that are there now, and end
    #[arg(long)]
    once: bool,
    /// How often to look for requests, and to try again after an error: 0.1s to 1d
    #[arg(long, value_name = "TIME", value_parser = shared::span, default_value = "2s")]
    poll: Duration,
    /// Answer GET /metrics (Prometheus) and GET /health on this address, as 127.0.0.1:9464
    #[arg(long, value_name = "ADDRESS")]
    metrics: Option<SocketAddr>,
    /// Allow --metrics an address that other machines reach
    #[arg(long, requires = "metrics")]
    metrics_anywhere: bool,
    #[command(flatten)]
    method: MethodArgs,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Serves.
pub fn run(args: &Args) -> anyhow::Result<Exit> {
    check_folder(&args.spool)?;
    let options = args.options();
    options.request.check()?;
    let metrics = Arc::new(Metrics::starting());
    let incoming = args.spool.join("incoming");
    let answer =
        |address| Responder::start(address, args.metrics_anywhere, metrics.clone(), incoming.clone());
    let responder = args.metrics.map(answer).transpose()?; // it answers until the end
    if let Some(responder) = &responder {
        eprintln!("metrics: http://{}/metrics", responder.address());
    }
    let bar = shared::progress(0, "batches");
    let shown = bar.clone();
    let session = Session::open(args.device.open()?, args.sources())?
        .with_command(command_line())
        .with_samples_shown(false)
        .with_stop(shared::stop_flag()?)
        .on_progress(move |progress| {
            shown.set_length(progress.batches as u64);
            shown.set_position(progress.done as u64);
        });
    let begun = Arc::new(AtomicBool::new(false)); // what comes before is how files were read
    let told = begun.clone();
    let session = session.on_log(move |level, message| match (level, told.load(Ordering::Relaxed)) {
        (Level::Warning, true) => eprintln!("warning: {message}"),
        _ => eprintln!("{message}"),
    });
    begun.store(true, Ordering::Relaxed);
    let mut server = Server::open(session, &args.spool, options)?.with_metrics(metrics.clone());
    finish(args, server.serve()?)
}

fn finish(args: &Args, served: Served) -> anyhow::Result<Exit> {
    let Served { removed, not_removed, refused } = served;
    println!("requests   {removed} removed, {not_removed} not removed, {refused} refused");
    println!("written    {}", args.spool.display());
    Ok(if args.once && not_removed + refused > 0 { Exit::GateNotMet } else { Exit::Done })
}

impl Args {
    fn sources(&self) -> Sources {
        let mut sources = Sources {
            model: self.model.model.clone(),
            choices: self.model.choices.choices(),
            ignore: self.model.choices.ignored(),
            weights: self.model.choices.weights(),
            data: self.data.clone(),
            validation: self.val.clone(),
            proxy: self.method.proxy_model(),
            ..Sources::default()
        };
        self.normalise.write(&mut sources);
        sources
    }

    fn options(&self) -> QueueOptions {
        let request = ScrubOptions {
            retain: self.retain.as_deref().map(Pick::from),
            n: self.n,
            ..self.method.options()
        };
        QueueOptions {
            request,
            policy: Policy { count: self.batch_count, age: self.batch_age },
            keep: self.keep,
            once: self.once,
            poll: self.poll,
        }
    }
}
