//! Set-up M: many removals, in batches of 25, from one model, recorded as `scrub` records them. The run always stops
//! half way and goes on from what is on the disk, and the model must then be the one it had.

use std::path::Path;

use anyhow::ensure;
use scrubjay::Record;
use scrubjay::hold::hold;
use scrubjay::net::Network;
use scrubjay::ops::philox::{Stream, Use};
use scrubjay::receipt::Events;
use scrubjay::select::Method as Select;
use scrubjay::soft_label::Held;
use scrubjay::task::ProxyKind;
use scrubjay::unlearn::unlearn;

use crate::rivals::How;
use crate::setups::{REFERENCE_SEED, Request};
use crate::{Cells, Lab, Options, RETRAINED, finish, rivals};

const BATCH: usize = 25;
const QUICK_BATCH: usize = 10;

/// How many removals are measured after, of so many.
fn marks(total: usize) -> Vec<usize> {
    let marks = if total < 100 { [10, 30, 60].to_vec() } else { [100, 300, 600, 1000].to_vec() };
    marks.into_iter().filter(|&mark| mark <= total).collect()
}

/// All cells of M.
pub fn run(options: &Options, lab: &mut Lab, cells: &mut Cells) -> anyhow::Result<()> {
    let batch = if options.quick { QUICK_BATCH } else { BATCH };
    let n = lab.data.train.y.len();
    let [Request::Random(total)] = lab.setup.requests[..] else { return Ok(()) };
    let order = Stream::new(0, Use::Choice, 25).choose(n, total);
    let first = |count: usize| {
        let mut some = order[..count].to_vec();
        some.sort_unstable();
        some
    };
    let methods = [
        ("none", "", None),
        ("ours: vote", "", Some(How::Newton(Select::Vote, 1))),
        ("ours: all units", "", Some(How::Newton(Select::Full, 1))),
        (
            "ours: hold",
            "proxy 2 epochs, hold 2 a batch",
            Some(How::Hold(ProxyKind::Trained, 2, 2, None, None)),
        ),
        (
            "ours: hold, neighbours",
            "hold 2 a batch",
            Some(How::Hold(ProxyKind::Neighbours, 4, 2, None, None)),
        ),
    ];
    for seed in 0..options.seeds {
        for count in marks(total) {
            if seed == 0 {
                retrained(lab, cells, count, &first(count), seed)?;
            }
        }
        for (method, setting, how) in methods {
            let has = |cells: &Cells, count: usize| {
                cells.has("M", &Request::Random(count).name(), method, setting, (0, seed))
            };
            if !options.wants(method) || marks(total).iter().all(|&count| has(cells, count)) {
                continue;
            }
            lab.prepare(seed)?;
            let whole = lab.case(Request::Random(total), first(total), seed)?;
            let mut net = whole.original.clone();
            let folder = options.out.join(format!("many-{}-{seed}", method.replace([' ', ':', '+'], "")));
            let identity = format!("{:?} {method} {setting} {seed}", lab.setup);
            let (mut seconds, mut refused, mut gone, mut made) = (0.0, 0, vec![], vec![]);
            if how.is_some() {
                std::fs::create_dir_all(&folder)?;
            }
            let mut events = match how {
                Some(_) => Some(Events::open(&folder, &identity)?),
                None => None,
            };
            for number in 0..total / batch {
                if let (Some((log, records)), Some(how)) = (&mut events, how) {
                    if number == total / batch / 2 {
                        (*log, *records) = reopened(&folder, &identity, whole.original, &net, number)?;
                    }
                    let record = match records.get(number) {
                        Some(record) => {
                            record.replay(&mut net)?;
                            record.clone()
                        }
                        None => {
                            let task = rivals::task(&whole, rivals::settings_of(&whole, how)?);
                            let some = &order[number * batch..(number + 1) * batch];
                            let record = match &task.settings.hold {
                                Some(settings) => {
                                    hold(&task, settings, &mut net, number, some, Held::of(&made))?
                                }
                                None => unlearn(&task, &mut net, number, some, &gone)?,
                            };
                            log.write(&record)?;
                            record
                        }
                    };
                    match record.removed() {
                        true => gone.extend(&record.indices),
                        false => refused += 1,
                    }
                    seconds += record.account.seconds.values().sum::<f64>();
                    made.push(record);
                }
                let count = (number + 1) * batch;
                if marks(total).contains(&count) && !has(cells, count) {
                    let case = lab.case(Request::Random(count), first(count), seed)?;
                    let note = if refused > 0 { format!("{refused} batches refused") } else { String::new() };
                    cells.push(finish(lab, &case, method, setting, (0, seed), &net, (seconds, note))?)?;
                }
            }
        }
    }
    Ok(())
}

/// Models that never saw the first `count` samples.
fn retrained(
    lab: &mut Lab,
    cells: &mut Cells,
    count: usize,
    forget: &[usize],
    seed: u64,
) -> anyhow::Result<()> {
    let request = Request::Random(count);
    for number in 0..lab.setup.references as u64 {
        if cells.has("M", &request.name(), RETRAINED, "", (0, number)) {
            continue;
        }
        lab.prepare(seed)?;
        let case = lab.case(request, forget.to_vec(), seed)?;
        let start = std::time::Instant::now();
        let net = lab.setup.trained(case.device, &lab.data, &case.retain, REFERENCE_SEED + number)?;
        let seconds = start.elapsed().as_secs_f64();
        cells.push(finish(lab, &case, RETRAINED, "", (0, number), &net, (seconds, String::new()))?)?;
    }
    Ok(())
}

/// The records of a run that was stopped behind `number` batches: what the disk holds must give the same model.
fn reopened(
    folder: &Path,
    identity: &str,
    original: &Network,
    net: &Network,
    number: usize,
) -> anyhow::Result<(Events, Vec<Record>)> {
    let (log, records) = Events::open(folder, identity)?;
    let mut replayed = original.clone();
    records[..number].iter().try_for_each(|record| record.replay(&mut replayed))?;
    ensure!(replayed == *net, "set-up M: the records do not give the model back");
    Ok((log, records))
}
