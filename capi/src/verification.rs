//! Verifications: a model before and after, compared with models that were retrained without the samples.

use std::ffi::{CString, c_char};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use scrubjay::Device;
use scrubjay::comparison::MEASURES;
use scrubjay::data::Names;
use scrubjay::net::Network;
use scrubjay::options::Pick;
use scrubjay::report::{self, VerifyReport};
use scrubjay::session::fits;
use scrubjay::verification::{Question, Sets, Verification, compare};

use crate::callbacks::Callbacks;
use crate::device::{DeviceObject, c_text};
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::model::{Model, count, texts};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::request::pick;
use crate::samples::SamplesObject;
use crate::session::SessionFiles;
use crate::status::{Failure, Outcome};

/// `sj_verification`.
pub struct VerificationObject {
    report: VerifyReport,
    json: CString,
    page: CString,
    /// Of every measure, in order.
    measures: Vec<[CString; 2]>,
    /// Of every flag: what it is, its measure, and its numbers in words.
    flags: Vec<[CString; 3]>,
    notes: Vec<CString>,
}

impl Object for VerificationObject {
    const NAME: &'static str = "verification";
}

impl VerificationObject {
    fn new(report: VerifyReport) -> Outcome<VerificationObject> {
        let json = serde_json::to_value(&report).map_err(|e| Failure::argument(e.to_string()))?;
        let flag = |finding: &serde_json::Value| -> Outcome<_> {
            let text = |key: &str| c_text(finding[key].as_str().unwrap_or_default());
            Ok([text("flag")?, text("measure")?, text("text")?])
        };
        let flags = json["findings"].as_array().into_iter().flatten().map(flag).collect::<Outcome<_>>()?;
        Ok(VerificationObject {
            json: c_text(&json.to_string())?,
            page: c_text(&report::verify(&report))?,
            measures: MEASURES
                .iter()
                .map(|of| Ok([c_text(of.key)?, c_text(of.text)?]))
                .collect::<Outcome<_>>()?,
            flags,
            notes: report.notes.iter().map(|note| c_text(note)).collect::<Outcome<_>>()?,
            report,
        })
    }
}

versioned! {
    /// `sj_verify_options`.
    VerifyOptions as "sj_verify_options" {
        forget: Text = Text::NONE,
        forget_indices: In<u64> = In::NONE,
        forget_count: u64 = 0,
        retain: Text = Text::NONE,
        retain_indices: In<u64> = In::NONE,
        retain_count: u64 = 0,
    }
}

versioned! {
    /// `sj_verification_info`.
    VerificationInfo as "sj_verification_info" {
        flags: u64 = 0,
        remembered: u64 = 0,
        references: u64 = 0,
        measures: u64 = 0,
        notes: u64 = 0,
        forget: u64 = 0,
        retain: u64 = 0,
        test: u64 = 0,
        unseen: u64 = 0,
    }
}

versioned! {
    /// `sj_measure`.
    Measure as "sj_measure" {
        name: Text = Text::NONE,
        text: Text = Text::NONE,
        before: f64 = f64::NAN,
        after: f64 = f64::NAN,
        mean: f64 = f64::NAN,
        deviation: f64 = f64::NAN,
    }
}

versioned! {
    /// `sj_flag`.
    CFlag as "sj_flag" {
        name: Text = Text::NONE,
        measure: Text = Text::NONE,
        text: Text = Text::NONE,
    }
}

impl VerifyOptions {
    /// The samples that were to be removed, and the retained ones.
    fn picks(&self) -> Outcome<(Pick, Option<Pick>)> {
        let forget = pick(self.forget, (self.forget_indices, self.forget_count), "forget")?;
        let retain = pick(self.retain, (self.retain_indices, self.retain_count), "retain")?;
        let none = || Failure::argument("forget or forget_indices names the samples that were to be removed");
        Ok((forget.ok_or_else(none)?, retain))
    }
}

/// Compares files.
fn of_files(device: &Device, question: Question, callbacks: &Callbacks) -> Outcome<VerifyReport> {
    let started = Instant::now();
    let verification = Verification::open(question)?;
    verification.reading.iter().for_each(|note| callbacks.warn(note));
    let found = verification.run(device, callbacks.each_of(2 + verification.references.len()))?;
    let mut report = VerifyReport::new(&verification, &found, device);
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// Compares models in memory.
fn of_models(
    device: &Device,
    [before, after]: [&Model; 2],
    references: &[Arc<Model>],
    [samples, test]: [&SamplesObject; 2],
    options: &VerifyOptions,
    callbacks: &Callbacks,
) -> Outcome<VerifyReport> {
    let started = Instant::now();
    for (set, what) in [(samples, "the samples"), (test, "the test samples")] {
        fits(&before.network, &set.samples, what)?;
    }
    let (forget, retain) = options.picks()?;
    let choose = |pick: Pick| pick.choose(None, &samples.samples.y, &Names::default());
    let retain = retain.map(choose).transpose()?;
    let sets = Sets::new(samples.samples.clone(), test.samples.clone(), choose(forget)?, retain)?;
    let networks: Vec<Network> = references.iter().map(|model| model.network.clone()).collect();
    let each = callbacks.each_of(2 + networks.len());
    let found = compare(device, &before.network, &after.network, &networks, &sets, each)?;
    let mut report = VerifyReport::in_memory(&sets, &found, before.known_family(), device);
    report.seconds = started.elapsed().as_secs_f64();
    Ok(report)
}

/// One text of several.
fn one<'a, T>(all: &'a [T], number: u64, what: &str) -> Outcome<&'a T> {
    let found = all.get(count(number, what)?);
    found.ok_or_else(|| Failure::argument(format!("{what} {number} of {}", all.len())))
}

entry! {
    /// Fills in the defaults.
    fn sj_verify_options_init(options: Info<VerifyOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// Compares models in files.
    fn sj_verification_open(
        device: Handle<DeviceObject>,
        files: Options<SessionFiles>,
        after: Text,
        references: In<Text>,
        number: u64,
        test: Text,
        options: Options<VerifyOptions>,
        callbacks: Options<Callbacks>,
        verification: NewHandle<VerificationObject>,
    ) {
        verification.open()?;
        let device = device.get()?;
        let (forget, retain) = options.get()?.picks()?;
        let references = texts(references, number, ["reference_count", "paths of references"])?;
        let question = Question {
            sources: files.get()?.of_two_sets()?,
            after: after.get("path of the model after")?.into(),
            references: references.into_iter().map(PathBuf::from).collect(),
            forget,
            retain,
            test: test.get("path of the test data")?.into(),
        };
        verification.put(VerificationObject::new(of_files(&device.device, question, &callbacks.get()?)?)?)
    }

    /// Compares models in memory.
    fn sj_verification_new(
        device: Handle<DeviceObject>,
        before: Handle<Model>,
        after: Handle<Model>,
        references: In<Handle<Model>>,
        number: u64,
        samples: Handle<SamplesObject>,
        test: Handle<SamplesObject>,
        options: Options<VerifyOptions>,
        callbacks: Options<Callbacks>,
        verification: NewHandle<VerificationObject>,
    ) {
        verification.open()?;
        let (device, before, after) = (device.get()?, before.get()?, after.get()?);
        let (samples, test, options) = (samples.get()?, test.get()?, options.get()?);
        let references = references.list(count(number, "reference_count")?, "references")?;
        let references = references.iter().map(Handle::get).collect::<Outcome<Vec<_>>>()?;
        let report = of_models(
            &device.device,
            [&before, &after],
            &references,
            [&samples, &test],
            &options,
            &callbacks.get()?,
        )?;
        verification.put(VerificationObject::new(report)?)
    }

    /// What a verification found, in numbers.
    fn sj_verification_get_info(verification: Handle<VerificationObject>, info: Info<VerificationInfo>) {
        let verification = verification.get()?;
        let report = &verification.report;
        info.put(VerificationInfo {
            flags: verification.flags.len() as u64,
            remembered: report.remembered.into(),
            references: report.references.len() as u64,
            measures: MEASURES.len() as u64,
            notes: verification.notes.len() as u64,
            forget: report.sets.forget.n as u64,
            retain: report.sets.retain.n as u64,
            test: report.sets.test.n as u64,
            unseen: report.sets.unseen as u64,
            ..VerificationInfo::EMPTY
        })
    }

    /// A measure of all models.
    fn sj_verification_get_measure(
        verification: Handle<VerificationObject>,
        number: u64,
        measure: Info<Measure>,
    ) {
        let verification = verification.get()?;
        let [name, text] = one(&verification.measures, number, "measure")?;
        let (report, of) = (&verification.report, one(&MEASURES, number, "measure")?);
        let spread = report.retrained.get(of.key).copied().flatten();
        let value = |row| (of.of)(row).unwrap_or(f64::NAN);
        measure.put(Measure {
            name: Text::of(name),
            text: Text::of(text),
            before: value(&report.before.measures),
            after: value(&report.after.measures),
            mean: spread.map_or(f64::NAN, |spread| spread.mean),
            deviation: spread.and_then(|spread| spread.deviation).unwrap_or(f64::NAN),
            ..Measure::EMPTY
        })
    }

    /// A flag.
    fn sj_verification_get_flag(verification: Handle<VerificationObject>, number: u64, flag: Info<CFlag>) {
        let verification = verification.get()?;
        let [name, measure, text] = one(&verification.flags, number, "flag")?;
        flag.put(CFlag {
            name: Text::of(name),
            measure: Text::of(measure),
            text: Text::of(text),
            ..CFlag::EMPTY
        })
    }

    /// A remark.
    fn sj_verification_get_note(
        verification: Handle<VerificationObject>,
        number: u64,
        text: Out<*const c_char>,
    ) {
        let (verification, place) = (verification.get()?, text.open("text")?);
        place.write(one(&verification.notes, number, "note")?.as_ptr());
        Ok(())
    }

    /// The report.
    fn sj_verification_get_report(verification: Handle<VerificationObject>, json: Out<*const c_char>) {
        let (verification, place) = (verification.get()?, json.open("text")?);
        place.write(verification.json.as_ptr());
        Ok(())
    }

    /// The page.
    fn sj_verification_get_page(verification: Handle<VerificationObject>, html: Out<*const c_char>) {
        let (verification, place) = (verification.get()?, html.open("text")?);
        place.write(verification.page.as_ptr());
        Ok(())
    }

    /// Ends a handle.
    fn sj_verification_free(verification: Handle<VerificationObject>) {
        verification.free()
    }
}
