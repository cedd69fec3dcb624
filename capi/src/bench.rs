//! Benchmarks of single kernels, by name.

use std::ffi::{CString, c_char};
use std::sync::OnceLock;

use scrubjay::Error;
use scrubjay::bench::{CASES, Case, case as case_named, check, measure};

use crate::device::DeviceObject;
use crate::entry::entry;
use crate::handle::Handle;
use crate::model::count;
use crate::raw::{In, Info, Out, Text, versioned};
use crate::status::{Failure, Outcome};

versioned! {
    /// `sj_bench_case`.
    BenchCase as "sj_bench_case" {
        name: Text = Text::NONE,
        about: Text = Text::NONE,
        dtype: Text = Text::NONE,
        axes: u64 = 0,
    }
}

versioned! {
    /// `sj_bench_result`.
    BenchResult as "sj_bench_result" {
        median_seconds: f64 = 0.0,
        least_seconds: f64 = 0.0,
        samples: u64 = 0,
        bytes: f64 = 0.0,
        flops: f64 = 0.0,
        error: f64 = 0.0,
        tolerance: f64 = 0.0,
        passes: u64 = 0,
    }
}

/// The texts of a case, for C.
struct Texts {
    name: CString,
    about: CString,
    dtype: CString,
    axes: Vec<CString>,
}

/// Those of all cases; they never change.
fn texts() -> &'static [Texts] {
    static TEXTS: OnceLock<Vec<Texts>> = OnceLock::new();
    let text = |text: &str| CString::new(text).unwrap_or_default();
    let of = |case: &Case| Texts {
        name: text(case.name),
        about: text(case.about),
        dtype: text(case.dtype),
        axes: case.axes.iter().map(|(axis, _)| text(axis)).collect(),
    };
    TEXTS.get_or_init(|| CASES.iter().map(of).collect())
}

fn case(number: u64) -> Outcome<(&'static Case, &'static Texts)> {
    let at = count(number, "case")?;
    let found = CASES.get(at).zip(texts().get(at));
    found.ok_or_else(|| Failure::argument(format!("case {number} of {}", CASES.len())))
}

entry! {
    /// How many cases there are.
    fn sj_bench_count(cases: Out<u64>) {
        cases.open("number of cases")?.write(CASES.len() as u64);
        Ok(())
    }

    /// What a case is.
    fn sj_bench_get_case(number: u64, info: Info<BenchCase>) {
        let (case, texts) = case(number)?;
        info.put(BenchCase {
            name: Text::of(&texts.name),
            about: Text::of(&texts.about),
            dtype: Text::of(&texts.dtype),
            axes: case.axes.len() as u64,
            ..BenchCase::EMPTY
        })
    }

    /// An axis of a case's shape.
    fn sj_bench_get_axis(number: u64, axis: u64, name: Out<*const c_char>, size: Out<u64>) {
        let (case, texts) = case(number)?;
        let (name, size) = (name.wanted("name")?, size.wanted("size")?);
        let at = count(axis, "axis")?;
        let (Some((_, default)), Some(text)) = (case.axes.get(at), texts.axes.get(at)) else {
            return Err(Failure::argument(format!("axis {axis} of {}", case.axes.len())));
        };
        if let Some(name) = name {
            name.write(text.as_ptr());
        }
        if let Some(size) = size {
            size.write(*default as u64);
        }
        Ok(())
    }

    /// Checks and times a case.
    fn sj_bench_run(
        device: Handle<DeviceObject>,
        name: Text,
        sizes: In<u64>,
        number: u64,
        result: Info<BenchResult>,
    ) {
        let device = device.get()?;
        result.check()?;
        let (device, name) = (&device.device, name.get("name of the case")?);
        let case = case_named(name).map_err(|error| Failure::argument(error.to_string()))?;
        if !case.runs_on(device) {
            return Err(Error::config(format!("the case {name} is for CUDA alone")).into());
        }
        let sizes = match (sizes.is_null(), sizes.list(count(number, "sizes")?, "sizes")?) {
            (true, []) => case.axes.iter().map(|(_, size)| *size).collect(),
            (_, given) => given.iter().map(|&size| count(size, "size")).collect::<Outcome<Vec<usize>>>()?,
        };
        case.check(device, &sizes).map_err(|error| Failure::argument(error.to_string()))?;
        let mut work = (case.make)(device, &sizes)?;
        let (check, _) = check(device, &mut work)?;
        let timing = measure(device, &mut work)?;
        result.put(BenchResult {
            median_seconds: timing.median,
            least_seconds: timing.least,
            samples: timing.samples as u64,
            bytes: work.bytes,
            flops: work.flops,
            error: check.error,
            tolerance: check.tolerance,
            passes: check.passes().into(),
            ..BenchResult::EMPTY
        })
    }
}
