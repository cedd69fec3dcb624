//! `report.json` of a run: the request, its options with the defaults that were worked out, and what was done.

use serde_json::{Value, json};

use crate::data::shown;
use crate::hash;
use crate::options::Pick;
use crate::outcome::Record;
use crate::report::ScrubReport;
use crate::request::Request;
use crate::session::Session;
use crate::task::{HoldSettings, Procedure};

/// `report.json` (docs/REPORT.md).
pub fn report_of(report: &ScrubReport) -> Value {
    let ScrubReport { session, request, outcome, files, identity, .. } = report;
    json!({
        "scrubjay": env!("CARGO_PKG_VERSION"),
        "report": "scrub",
        "command": session.command(),
        "identity": identity,
        "family": session.family(),
        "device": session.device().report(),
        "gpu": session.device().reading(),
        "options": options(session, request),
        "request": {
            "samples": request.forget,
            "first": shown(&request.forget, &session.samples().y, session.names()),
            "sha256": hash::of_parts(request.forget.iter().map(|i| i.to_le_bytes())),
            "n": request.n,
            "forgotten_before": session.forgotten().len(),
            "batch": request.batch,
        },
        "retained": {
            "used": request.retained.len(),
            "held_out": request.held_out.len(),
            "chosen": request.retained_by,
        },
        "removed": outcome.removed,
        "not_removed": outcome.not_removed,
        "written": outcome.written.as_ref().map(|written| json!({"before": written.before, "after": written.after})),
        "privacy": outcome.privacy,
        "notes": outcome.notes,
        "never_touched": outcome.never_touched,
        "model": files,
        "layers": outcome.layers,
        "records": outcome.records.iter().map(without_values).collect::<Vec<_>>(),
        "seconds": outcome.seconds,
    })
}

/// The options of a report: as they were asked for, with the defaults that were worked out.
fn options(session: &Session, request: &Request) -> Value {
    let (settings, sources) = (&request.settings, session.sources());
    let texts = session.network().vocabulary().is_some();
    json!({
        "model": sources.map(|sources| &sources.model),
        "data": sources.map(|sources| &sources.data),
        "forget": request.asked.as_ref().and_then(Pick::text),
        "forget_data": sources.and_then(|sources| sources.forget_data.as_ref()),
        "retain": request.options.retain.as_ref().and_then(Pick::text),
        "val": sources.and_then(|sources| sources.validation.as_ref()),
        "method": if settings.hold.is_some() { Procedure::Hold } else { Procedure::Lcodec },
        "hold": settings.hold.as_ref().map(|HoldSettings { proxy, recipe, epochs, block, selection }| json!({
            "proxy": proxy,
            "model": sources.and_then(|sources| sources.proxy.as_ref()),
            "recipe": recipe,
            "epochs": epochs,
            "block": block,
            "selection": selection,
        })),
        "selection": settings.selection.method,
        "perturbations": settings.selection.perturbations,
        "sigma": (!texts).then_some(settings.selection.sigma),
        "replace": texts.then_some(settings.selection.replace),
        "max_units": settings.selection.max_units,
        "share": settings.selection.share,
        "precision": settings.selection.precision,
        "curvature": settings.curvature,
        "earlier": sources.and_then(|sources| sources.earlier.as_ref()),
        "precondition": settings.precondition,
        "damping": settings.damping,
        "l2": settings.l2,
        "update": settings.rule,
        "length": settings.calibration,
        "target": settings.target,
        "stages": settings.stages,
        "iterations": settings.iterations,
        "tolerance": settings.limits.tolerance,
        "products": settings.limits.products,
        "gate": settings.gate,
        "if_empty": settings.if_empty,
        "epsilon": settings.certificate.map(|spec| spec.epsilon),
        "delta": settings.certificate.map(|spec| spec.delta),
        "noise": settings.noise(),
        "delta_file": request.options.delta_file,
        "rounding": request.options.rounding,
        "budget": request.options.budget,
        "despite": request.options.despite.as_deref().unwrap_or_default(),
        "seed": settings.seed,
    })
}

fn without_values(record: &Record) -> Value {
    json!({
        "batch": record.batch,
        "indices": record.indices,
        "removed": record.removed(),
        "fate": record.fate,
        "notes": record.notes,
        "units": record.units,
        "account": record.account,
    })
}
