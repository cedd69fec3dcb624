//! CODEC, ξ and FOCI on columns of numbers.

use std::ffi::{CStr, c_char};

use scrubjay::codec::{self, Foci, FociOptions, Measure, Standardize, StatisticOptions, Stopped, Ties};

use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::Handle;
use crate::model::{count, flag, some};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::status::{BUFFER, Failure, Outcome};
use crate::tensor::{self, Tensor};

versioned! {
    /// `sj_codec_options`.
    CodecOptions as "sj_codec_options" {
        measure: Text = Text::NONE,
        standardize: Text = Text::NONE,
        ties: Text = Text::NONE,
        draws: u64 = 1,
        noise: f64 = 0.0,
        seed: u64 = 0,
        permutations: u64 = 0,
        level: f64 = f64::NAN,
        subsamples: u64 = 400,
    }
}

versioned! {
    /// `sj_codec_result`.
    CodecResult as "sj_codec_result" {
        value: f64 = f64::NAN,
        rows: u64 = 0,
        p_value: f64 = f64::NAN,
        low: f64 = f64::NAN,
        high: f64 = f64::NAN,
        subsample_rows: u64 = 0,
    }
}

versioned! {
    /// `sj_foci_options`.
    CFociOptions as "sj_foci_options" {
        standardize: Text = Text::NONE,
        ties: Text = Text::NONE,
        draws: u64 = 1,
        noise: f64 = 0.0,
        seed: u64 = 0,
        initial: In<u64> = In::NONE,
        initial_count: u64 = 0,
        max_columns: u64 = 0,
        all: u64 = 0,
        groups: In<u64> = In::NONE,
    }
}

/// `sj_foci_step`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FociStep {
    column: u64,
    conditional: f64,
    cumulative: f64,
}

impl FociStep {
    /// What FOCI chose, of its steps.
    pub fn selection(steps: &[FociStep], stopped: Stopped) -> Foci {
        let number = |value: f64| Some(value).filter(|value| !value.is_nan());
        Foci {
            order: (0..steps.len()).collect(),
            conditional: steps.iter().map(|step| number(step.conditional)).collect(),
            cumulative: steps.iter().map(|step| number(step.cumulative)).collect(),
            stopped,
            first_step: vec![],
        }
    }
}

/// The steps of what FOCI chose.
pub fn steps_of(found: &Foci) -> Vec<FociStep> {
    let number = |value: &Option<f64>| value.unwrap_or(f64::NAN);
    let values = found.conditional.iter().zip(&found.cumulative);
    let step = |(&column, (conditional, cumulative)): (&usize, (&Option<f64>, &Option<f64>))| FociStep {
        column: column as u64,
        conditional: number(conditional),
        cumulative: number(cumulative),
    };
    found.order.iter().zip(values).map(step).collect()
}

/// The fields of `sj_foci_step`, for the test that compares them with the header.
#[cfg(test)]
pub const FIELDS: [(&str, usize); 3] = {
    use std::mem::offset_of;
    [
        ("column", offset_of!(FociStep, column)),
        ("conditional", offset_of!(FociStep, conditional)),
        ("cumulative", offset_of!(FociStep, cumulative)),
    ]
};

fn ties(name: Text, seed: u64, draws: u64) -> Outcome<Ties> {
    match name.find("ties")? {
        None | Some("mean") => Ok(Ties::Mean),
        Some("first") => Ok(Ties::First),
        Some("random") => match u32::try_from(draws) {
            Ok(draws) if draws > 0 => Ok(Ties::Random { seed, draws }),
            _ => Err(Failure::argument(format!("draws: {draws}, where 1 to 2^32 - 1 were expected"))),
        },
        Some(other) => Err(Failure::argument(format!("ties are mean, first or random, not `{other}`"))),
    }
}

fn columns(list: In<u64>, number: u64, what: &str) -> Outcome<Vec<usize>> {
    list.list(count(number, what)?, what)?.iter().map(|&column| count(column, what)).collect()
}

fn small(number: u64, what: &str) -> Outcome<u32> {
    u32::try_from(number).map_err(|_| Failure::argument(format!("{what}: {number} is more than 2^32 - 1")))
}

/// The groups of `p` columns, by the number of each one's group; none where every column is alone.
fn groups(list: In<u64>, p: usize) -> Outcome<Vec<Vec<usize>>> {
    let mut groups: Vec<Vec<usize>> = vec![];
    if list.is_null() {
        return Ok(groups);
    }
    for (column, &number) in
        list.list(p, "groups")?.iter().enumerate().filter(|(_, number)| **number != u64::MAX)
    {
        if number >= p as u64 {
            return Err(Failure::argument(format!(
                "groups: column {column} is in group {number}, of {p} at most"
            )));
        }
        groups.resize(groups.len().max(number as usize + 1), vec![]);
        groups[number as usize].push(column);
    }
    match groups.iter().position(Vec::is_empty) {
        _ if groups.is_empty() => Err(Failure::argument("groups: no column is in a group")),
        Some(empty) => Err(Failure::argument(format!(
            "groups: no column is in group {empty}, and one is in a later group"
        ))),
        None => Ok(groups),
    }
}

/// Subsamples at most: there is a value of each in memory.
const MOST_SUBSAMPLES: u32 = 1 << 24;

/// Why a selection ended, by the name that C got.
pub fn stopped_of(text: Text) -> Outcome<Stopped> {
    let all = [
        Stopped::NotPositive,
        Stopped::Undefined,
        Stopped::MaxFeatures,
        Stopped::Exhausted,
        Stopped::Interrupted,
    ];
    let name = text.get("reason of the stop")?;
    let found = all.into_iter().find(|stopped| stopped.name() == name);
    found.ok_or_else(|| Failure::argument(format!("`{name}` is no reason for which a selection stops")))
}

/// Why a selection ended, for C.
pub fn reason(stopped: Stopped) -> &'static CStr {
    match stopped {
        Stopped::NotPositive => c"not-positive",
        Stopped::Undefined => c"undefined",
        Stopped::MaxFeatures => c"max-features",
        Stopped::Exhausted => c"exhausted",
        Stopped::Interrupted => c"interrupted",
    }
}

impl CFociOptions {
    /// The columns that are known, and the groups of `p` columns.
    pub fn lists(&self, p: usize) -> Outcome<(Vec<usize>, Vec<Vec<usize>>)> {
        let initial = columns(self.initial, self.initial_count, "initial columns")?;
        Ok((initial, groups(self.groups, p)?))
    }

    /// As the library takes them.
    pub fn selection<'a>(&self, initial: &'a [usize], groups: &'a [Vec<usize>]) -> Outcome<FociOptions<'a>> {
        Ok(FociOptions {
            initial,
            groups,
            max_features: some(self.max_columns, "max_columns")?,
            all: flag(self.all, "all")?,
            standardize: self.standardize.named::<Standardize>("standardize")?.unwrap_or_default(),
            ties: ties(self.ties, self.seed, self.draws)?,
            noise: self.noise,
            seed: self.seed,
            ..FociOptions::default()
        })
    }
}

entry! {
    /// Fills in the defaults.
    fn sj_codec_options_init(options: Info<CodecOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Fills in the defaults.
    fn sj_foci_options_init(options: Info<CFociOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// T(Y, Z | X), or ξ(Z, Y).
    fn sj_codec(
        device: Handle<DeviceObject>,
        y: In<Tensor>,
        data: In<Tensor>,
        z: In<u64>,
        z_count: u64,
        x: In<u64>,
        x_count: u64,
        options: Options<CodecOptions>,
        result: Info<CodecResult>,
    ) {
        let (device, options) = (device.get()?, options.get()?);
        result.check()?;
        let device = &device.device;
        let mut copy = vec![];
        let data = tensor::columns(&data, &mut copy)?;
        let y = tensor::vector(&y, "y", Some(data.n()))?;
        let (z, x) = (columns(z, z_count, "columns of Z")?, columns(x, x_count, "columns of X")?);
        let how = StatisticOptions {
            measure: options.measure.named::<Measure>("measure")?.unwrap_or_default(),
            standardize: options.standardize.named::<Standardize>("standardize")?.unwrap_or_default(),
            ties: ties(options.ties, options.seed, options.draws)?,
            noise: options.noise,
            seed: options.seed,
        };
        let (permutations, subsamples) = (small(options.permutations, "permutations")?, small(options.subsamples, "subsamples")?);
        if subsamples > MOST_SUBSAMPLES {
            return Err(Failure::argument(format!("subsamples: {subsamples} are more than {MOST_SUBSAMPLES}")));
        }
        let found = codec::statistic(device, &y, &data, &z, &x, &how)?;
        let p_value = match permutations {
            0 => None,
            _ => codec::p_value(device, &y, &data, &z, &x, &how, permutations)?,
        };
        let interval = match options.level.is_nan() {
            true => None,
            false => codec::interval(device, &y, &data, &z, &x, &how, options.level, subsamples)?,
        };
        result.put(CodecResult {
            value: found.value.unwrap_or(f64::NAN),
            rows: found.n as u64,
            p_value: p_value.unwrap_or(f64::NAN),
            low: interval.map_or(f64::NAN, |interval| interval.low),
            high: interval.map_or(f64::NAN, |interval| interval.high),
            subsample_rows: interval.map_or(0, |interval| interval.m) as u64,
            ..CodecResult::EMPTY
        })
    }

    /// Selects columns.
    fn sj_foci(
        device: Handle<DeviceObject>,
        y: In<Tensor>,
        data: In<Tensor>,
        options: Options<CFociOptions>,
        steps: Out<FociStep>,
        size: u64,
        found: Out<u64>,
        stopped: Out<*const c_char>,
    ) {
        let (device, options) = (device.get()?, options.get()?);
        let (places, found, stopped) = (count(size, "size")?, found.open("found")?, stopped.wanted("stopped")?);
        let mut copy = vec![];
        let data = tensor::columns(&data, &mut copy)?;
        let y = tensor::vector(&y, "y", Some(data.n()))?;
        let (initial, groups) = options.lists(data.p())?;
        let how = options.selection(&initial, &groups)?;
        let candidates = if groups.is_empty() { data.p() } else { groups.len() };
        let needed = how.max_features.unwrap_or(candidates).min(candidates);
        if places < needed {
            return Err(Failure::new(BUFFER, format!("{places} places for up to {needed} columns; max_columns asks for less")));
        }
        if needed > 0 {
            steps.open("steps")?;
        }
        let chosen = codec::foci(&device.device, &y, &data, &how)?;
        let list = steps_of(&chosen);
        steps.put_list(&list, places, "steps")?;
        found.write(list.len() as u64);
        if let Some(stopped) = stopped {
            stopped.write(reason(chosen.stopped).as_ptr());
        }
        Ok(())
    }
}
