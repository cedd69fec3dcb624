//! The page of a request that is not carried out yet: what it would remove, at what cost, and what speaks against it.

use super::forgotten::forgotten;
use super::page::{Page, Tone, duration, thousands};
use crate::error::Result;
use crate::estimate::Estimate;
use crate::inspection::bytes;
use crate::request::Request;
use crate::session::Session;

/// A request as a page, with its estimate and what there is to doubt.
///
/// # Errors
/// Where a sample cannot be read any more, or the device fails.
pub fn planned(
    session: &Session,
    request: &Request,
    estimate: &Estimate,
    doubts: &[String],
    seconds: f64,
) -> Result<String> {
    let mut page = Page::new(&format!("{} samples to be removed", thousands(request.forget.len())));
    page.paragraph(&format!(
        "{} ({}) was trained on {} samples. {} of the retained ones would be used ({}). Nothing was changed.",
        session.sources().map_or("A model in memory".into(), |sources| sources.model.display().to_string()),
        session.family(),
        thousands(request.n),
        thousands(request.retained.len()),
        request.retained_by,
    ));
    for doubt in doubts {
        page.banner(Tone::Warning, "To be considered", doubt);
    }
    let units = match estimate.epochs {
        Some(_) if request.settings.hold.as_ref().is_some_and(|hold| hold.block.is_none()) => "all".into(),
        _ => format!("at most {} of {}", thousands(estimate.units_at_most), thousands(estimate.units)),
    };
    page.facts(
        "tiles",
        &[
            ("samples", thousands(estimate.samples)),
            ("batches", thousands(estimate.batches)),
            ("units that may change", units),
            ("time, about", duration(estimate.seconds_at_most)),
            ("memory, about", bytes(estimate.memory.bytes)),
        ],
    );
    forgotten(&mut page, session, &request.forget, None)?;
    page.heading("To reproduce");
    session.command().iter().for_each(|command| page.verbatim(command));
    Ok(page.finish(&session.device().report(), seconds))
}
