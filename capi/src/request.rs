//! Requests: what is to be removed, with which options, checked whole; estimates; and carrying them out.

use std::ffi::{CString, c_char};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use scrubjay::data::tensors;
use scrubjay::doubt::doubts;
use scrubjay::net::Network;
use scrubjay::options::Pick;
use scrubjay::report::{self, ScrubReport};
use scrubjay::run::Ended;
use scrubjay::{Error, Estimate, Precision, Request, ScrubOptions};

use crate::device::c_text;
use crate::entry::entry;
use crate::handle::{Handle, NewHandle, Object};
use crate::model::{count, flag, given, some, some_small};
use crate::outcome::{Done, OutcomeObject, Page};
use crate::raw::{In, Info, Options, Out, Text, versioned};
use crate::session::SessionObject;
use crate::status::{Failure, Outcome};

/// `sj_request`.
pub struct RequestObject {
    request: Request,
    session: Arc<SessionObject>,
    page: OnceLock<CString>,
}

impl Object for RequestObject {
    const NAME: &'static str = "request";
}

impl RequestObject {
    /// The page of what it will take.
    fn planned(&self) -> Outcome<CString> {
        let (started, session) = (Instant::now(), &self.session.session);
        let doubts = doubts(session, &self.request)?;
        let estimate = session.estimate(&self.request)?;
        let seconds = started.elapsed().as_secs_f64();
        c_text(&report::planned(session, &self.request, &estimate, &doubts, seconds)?)
    }

    /// The page of what it came to in memory.
    fn page_after(&self, outcome: &scrubjay::Outcome, after: &Network) -> Outcome<CString> {
        let (session, request, after) = (&*self.session.session, &self.request, Some(after));
        c_text(&report::scrub(&ScrubReport {
            session,
            request,
            outcome,
            files: None,
            after,
            identity: None,
        })?)
    }
}

versioned! {
    /// `sj_scrub_options`. A number that is not given is 0 where 0 means nothing, else NaN.
    CScrubOptions as "sj_scrub_options" {
        retain: Text = Text::NONE,
        retain_indices: In<u64> = In::NONE,
        retain_count: u64 = 0,
        n: u64 = 0,
        batch: u64 = 0,
        selection: Text = Text::NONE,
        perturbations: u64 = 0,
        sigma: f64 = f64::NAN,
        replace: u64 = 0,
        precision: Text = Text::NONE,
        max_units: u64 = 0,
        curvature: Text = Text::NONE,
        precondition: u64 = 0,
        damping: f64 = f64::NAN,
        l2: f64 = ScrubOptions::DEFAULT.l2,
        update: Text = Text::NONE,
        length: Text = Text::NONE,
        target_loss: f64 = f64::NAN,
        wrong_labels: u64 = 0,
        stages: u64 = 0,
        iterations: u64 = 0,
        tolerance: f64 = ScrubOptions::DEFAULT.tolerance,
        products: u64 = 0,
        gate: f64 = ScrubOptions::DEFAULT.gate,
        if_empty: Text = Text::NONE,
        epsilon: f64 = f64::NAN,
        delta: f64 = f64::NAN,
        noise: Text = Text::NONE,
        seed: u64 = ScrubOptions::DEFAULT.seed,
        method: Text = Text::NONE,
        proxy: Text = Text::NONE,
        proxy_epochs: u64 = ScrubOptions::DEFAULT.proxy_epochs as u64,
        hold_epochs: u64 = ScrubOptions::DEFAULT.hold_epochs as u64,
        block: f64 = f64::NAN,
        despite: Text = Text::NONE,
        delta_file: Text = Text::NONE,
        budget: f64 = f64::NAN,
        rounding: Text = Text::NONE,
    }
}

versioned! {
    /// `sj_request_info`.
    RequestInfo as "sj_request_info" {
        forget: u64 = 0,
        retained: u64 = 0,
        held_out: u64 = 0,
        trained_on: u64 = 0,
        batch: u64 = 0,
        batches: u64 = 0,
        warnings: u64 = 0,
    }
}

versioned! {
    /// `sj_estimate`.
    CEstimate as "sj_estimate" {
        units: u64 = 0,
        units_at_most: u64 = 0,
        copies_per_batch: u64 = 0,
        observe_bytes: u64 = 0,
        products_bytes: u64 = 0,
        kept_bytes: u64 = 0,
        stages_at_most: u64 = 0,
        products_at_most: u64 = 0,
        seconds_at_most: f64 = 0.0,
        proxy_epochs: u64 = 0,
        hold_epochs: u64 = 0,
        cost_in_epochs: f64 = 0.0,
        memory_bytes: u64 = 0,
        memory_in_use: u64 = 0,
        memory_free: u64 = 0,
        kept_share: f64 = 0.0,
    }
}

fn indices(list: In<u64>, number: u64, what: &str) -> Outcome<Vec<usize>> {
    list.list(count(number, what)?, what)?.iter().map(|&index| count(index, what)).collect()
}

/// A choice of samples in words, or by index; none where neither is given.
pub fn pick(words: Text, (list, number): (In<u64>, u64), what: &str) -> Outcome<Option<Pick>> {
    match (words.find(what)?, indices(list, number, what)?) {
        (None, list) if list.is_empty() => Ok(None),
        (None, list) => Ok(Some(Pick::Indices(list))),
        (Some(text), list) if list.is_empty() => Ok(Some(Pick::from(text))),
        (Some(_), _) => {
            Err(Failure::argument(format!("{what} and {what}_indices are two answers to one question")))
        }
    }
}

impl CScrubOptions {
    fn options(&self) -> Outcome<ScrubOptions> {
        let retain = pick(self.retain, (self.retain_indices, self.retain_count), "retain")?;
        let plain = ScrubOptions::DEFAULT;
        Ok(ScrubOptions {
            retain,
            n: some(self.n, "n")?,
            batch: some(self.batch, "batch")?,
            selection: self.selection.named("selection")?,
            perturbations: some(self.perturbations, "perturbations")?,
            sigma: given(self.sigma).map(|sigma| sigma as f32),
            replace: some_small(self.replace, "replace")?,
            precision: self.precision.named::<Precision>("precision")?,
            max_units: some(self.max_units, "max_units")?,
            curvature: self.curvature.named("curvature")?,
            precondition: flag(self.precondition, "precondition")?,
            damping: given(self.damping),
            l2: self.l2,
            rule: self.update.named("update")?.unwrap_or(plain.rule),
            length: self.length.named("length")?.unwrap_or(plain.length),
            target_loss: given(self.target_loss),
            wrong_labels: flag(self.wrong_labels, "wrong_labels")?,
            stages: some(self.stages, "stages")?,
            iterations: some(self.iterations, "iterations")?,
            tolerance: self.tolerance,
            products: some(self.products, "products")?,
            gate: self.gate,
            if_empty: self.if_empty.named("if_empty")?.unwrap_or(plain.if_empty),
            epsilon: given(self.epsilon),
            delta: given(self.delta),
            noise: self.noise.named("noise")?,
            seed: self.seed,
            method: self.method.named("method")?,
            proxy: self.proxy.named("proxy")?.unwrap_or(plain.proxy),
            proxy_epochs: count(self.proxy_epochs, "proxy_epochs")?,
            hold_epochs: count(self.hold_epochs, "hold_epochs")?,
            block: given(self.block),
            despite: Some(self.despite.list("despite")?),
            delta_file: self.delta_file.named("delta_file")?,
            budget: given(self.budget),
            rounding: self.rounding.named("rounding")?.unwrap_or(plain.rounding),
        })
    }
}

/// Refuses the runs of a session that was cancelled.
fn not_cancelled(session: &SessionObject) -> Outcome {
    match session.is_cancelled() {
        false => Ok(()),
        true => {
            let kept = "the session was cancelled; sj_session_uncancel takes that back".into();
            Err(Error::Interrupted { kept }.into())
        }
    }
}

fn made(
    session: &Handle<SessionObject>,
    pick: Option<Pick>,
    options: &Options<CScrubOptions>,
    request: &NewHandle<RequestObject>,
) -> Outcome {
    let (session, options) = (session.get()?, options.get()?.options()?);
    let made = match pick {
        Some(pick) => Request::new(&session.session, pick, &options)?,
        None => Request::beside(&session.session, &options)?,
    };
    request.put(RequestObject { request: made, session, page: OnceLock::new() })
}

entry! {
    /// Fills in the defaults.
    fn sj_scrub_options_init(options: Info<CScrubOptions>, struct_size: usize) {
        options.init(struct_size)
    }

    /// A request in words.
    fn sj_request_select(
        session: Handle<SessionObject>,
        samples: Text,
        options: Options<CScrubOptions>,
        request: NewHandle<RequestObject>,
    ) {
        request.open()?;
        made(&session, Some(samples.get("selection of samples")?.into()), &options, &request)
    }

    /// A request by index.
    fn sj_request_indices(
        session: Handle<SessionObject>,
        samples: In<u64>,
        number: u64,
        options: Options<CScrubOptions>,
        request: NewHandle<RequestObject>,
    ) {
        request.open()?;
        let indices = indices(samples, number, "list of samples")?;
        made(&session, Some(indices.into()), &options, &request)
    }

    /// A request for the set beside the data.
    fn sj_request_beside(
        session: Handle<SessionObject>,
        options: Options<CScrubOptions>,
        request: NewHandle<RequestObject>,
    ) {
        request.open()?;
        made(&session, None, &options, &request)
    }

    /// What a request came to be.
    fn sj_request_get_info(request: Handle<RequestObject>, info: Info<RequestInfo>) {
        let object = request.get()?;
        let request = &object.request;
        info.put(RequestInfo {
            forget: request.forget.len() as u64,
            retained: request.retained.len() as u64,
            held_out: request.held_out.len() as u64,
            trained_on: request.n as u64,
            batch: request.batch as u64,
            batches: request.batches().len() as u64,
            warnings: request.warnings.len() as u64,
            ..RequestInfo::EMPTY
        })
    }

    /// What a request will take.
    fn sj_request_estimate(request: Handle<RequestObject>, estimate: Info<CEstimate>) {
        let object = request.get()?;
        estimate.check()?;
        let Estimate {
            units,
            units_at_most,
            epochs,
            copies_per_batch,
            observe_bytes,
            products_bytes,
            kept_bytes,
            memory,
            stages_at_most,
            products_at_most,
            seconds_at_most,
            ..
        } = object.session.session.estimate(&object.request)?;
        estimate.put(CEstimate {
            units: units as u64,
            units_at_most: units_at_most as u64,
            copies_per_batch: copies_per_batch as u64,
            observe_bytes: observe_bytes as u64,
            products_bytes: products_bytes as u64,
            kept_bytes: kept_bytes as u64,
            stages_at_most: stages_at_most as u64,
            products_at_most: products_at_most as u64,
            seconds_at_most,
            proxy_epochs: epochs.map_or(0, |epochs| epochs.proxy as u64),
            hold_epochs: epochs.map_or(0, |epochs| epochs.hold as u64),
            cost_in_epochs: epochs.map_or(0.0, |epochs| epochs.cost),
            memory_bytes: memory.bytes as u64,
            memory_in_use: memory.in_use as u64,
            memory_free: memory.free.map_or(0, |free| free.bytes as u64),
            kept_share: memory.kept_share,
            ..CEstimate::EMPTY
        })
    }

    /// The plan of a request as a page.
    fn sj_request_get_page(request: Handle<RequestObject>, html: Out<*const c_char>) {
        let (object, place) = (request.get()?, html.open("text")?);
        let page = match object.page.get() {
            Some(page) => page,
            None => {
                let page = object.planned()?;
                object.page.get_or_init(|| page)
            }
        };
        place.write(page.as_ptr());
        Ok(())
    }

    /// Carries a request out in memory.
    fn sj_request_scrub(request: Handle<RequestObject>, outcome: NewHandle<OutcomeObject>) {
        outcome.open()?;
        let object = request.get()?;
        let RequestObject { request, session, .. } = &*object;
        not_cancelled(session)?;
        let started = Instant::now();
        let scrubbed = session.session.scrub(request)?;
        let network = scrubbed.network.clone();
        let done = session.session.outcome(request, scrubbed, started.elapsed().as_secs_f64());
        let report = session.session.report(request, &done).to_string();
        let done = Done::Now(Box::new(done), session.model.changed(network)?);
        let of = object.clone();
        let page = Page::Made(Box::new(move |done, after| of.page_after(done, after)), OnceLock::new());
        outcome.put(OutcomeObject::new(done, &report, page)?)
    }

    /// Carries a request out into a folder.
    fn sj_request_run(request: Handle<RequestObject>, folder: Text, outcome: NewHandle<OutcomeObject>) {
        outcome.open()?;
        let object = request.get()?;
        let RequestObject { request, session, .. } = &*object;
        let folder = std::path::Path::new(folder.get("folder")?);
        not_cancelled(session)?;
        let done = match session.session.run(request, folder)? {
            Ended::Now(done, network) => Done::Now(done, session.model.changed(*network)?),
            Ended::Before(finished) => {
                let removed = request.forget.len().saturating_sub(finished.not_removed);
                Done::Before { removed, not_removed: finished.not_removed }
            }
        };
        let text = |name| tensors::text(&folder.join(name));
        let page = Page::Read(c_text(&text("report.html")?)?);
        outcome.put(OutcomeObject::new(done, &text("report.json")?, page)?)
    }

    /// Ends a handle.
    fn sj_request_free(request: Handle<RequestObject>) {
        request.free()
    }
}
