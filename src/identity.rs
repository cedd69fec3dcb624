//! The identity of a run: a hash over everything that decides its result, so that an interrupted run goes on with the same
//! inputs and options or not at all.

use crate::checkpoint::Checkpoint;
use crate::data::Samples;
use crate::error::{Error, Result};
use crate::hash;
use crate::request::Request;
use crate::select::Criteria;
use crate::session::{Session, Sources};
use crate::soft_label::Held;
use crate::solve::Limits;
use crate::task::{CertificateSpec, HoldSettings, Settings, Target};
use crate::train::Recipe;
use crate::update::NoiseUnits;
use crate::zoo::{Choices, Stem};

/// The version of the list of fields. It changes when a field is added, removed or written in another way.
const VERSION: u32 = 7;

/// The version, `-`, and the SHA-256 of the lines of [`fields`].
///
/// # Errors
/// Where the session was not opened from files.
pub fn identity(session: &Session, request: &Request) -> Result<String> {
    let lines: Vec<String> =
        fields(session, request)?.into_iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    Ok(format!("{VERSION}-{}", hash::of_parts(std::iter::once(lines.concat()))))
}

/// Whether an identity that was read is of another version of the list, and cannot be compared.
pub fn is_of_another_version(identity: &str) -> bool {
    identity.strip_prefix(&VERSION.to_string()).is_none_or(|rest| !rest.starts_with('-'))
}

/// The fields of version 7, in this order, one line `name = value` each: the program's version; the hashes of the model's
/// files, its config, the earlier model's and the proxy's files; what was chosen about the model; the hashes of the samples and the validation samples as they are after normalisation, and of the
/// lists of indices (to remove, retained, for a hold, held out); what earlier runs removed and a hold holds, where there is such;
/// n, the batch and the rounding; then every setting by name. Numbers are
/// written in the shortest form that gives the same bits, and what is not given as `default`. Left out is
/// [`Settings::memory`], which changes no bit.
fn fields(session: &Session, request: &Request) -> Result<Vec<(&'static str, String)>> {
    let model = session.checkpoint().ok_or_else(|| {
        Error::config("a session of values in memory has no files to write into a folder; use `scrub`")
    })?;
    let config = model.config().map(|config| hash::of_parts(std::iter::once(config.to_string())));
    let none = || "none".to_string();
    let [samples, validation] = session.hashes(of_samples)?;
    let files = |files: Option<&Checkpoint>| {
        files.map_or_else(|| Ok(none()), |files| hash::of_files_at(files.contents()))
    };
    let mut fields = vec![
        ("program", env!("CARGO_PKG_VERSION").to_string()),
        ("model", hash::of_files_at(model.contents())?),
        ("config", config.unwrap_or_else(none)),
        ("earlier", files(session.earlier_checkpoint())?),
        ("proxy", files(session.proxy_checkpoint())?),
    ];
    fields.extend(session.sources().into_iter().flat_map(of_model));
    fields.extend([
        ("samples", samples),
        ("validation", validation),
        ("forget", of_indices(&request.forget)),
        ("retained", of_indices(&request.retained)),
        ("train_on", of_indices(&request.train_on)),
        ("held_out", of_indices(&request.held_out)),
    ]);
    if !session.forgotten().is_empty() {
        let Held { indices, soft_labels } = session.held();
        let soft_labels = hash::of_numbers(soft_labels.iter().map(|value| value.to_le_bytes()));
        fields.push(("forgotten", of_indices(session.forgotten())));
        fields.push(("held", format!("{} {soft_labels}", of_indices(indices))));
    }
    fields.extend([("n", request.n.to_string()), ("batch", request.batch.to_string())]);
    fields.push(("rounding", request.options.rounding.name().to_string()));
    fields.extend(of_settings(&request.settings));
    Ok(fields)
}

/// What was chosen about the model. The patterns are written as a list in JSON, so that no two lists read alike. Keys
/// of weights are listed only where some were chosen, as they were not there when version 3 began.
fn of_model(sources: &Sources) -> Vec<(&'static str, String)> {
    let Choices { arch, heads, stem } = &sources.choices;
    let chosen = Some(&sources.weights).filter(|keys| !keys.is_empty());
    let weights = chosen.map(|keys| ("weights", serde_json::json!(keys).to_string()));
    let always = [
        ("arch", given(arch.as_deref())),
        ("heads", given(*heads)),
        ("stem", given(stem.map(Stem::name))),
        ("ignore", serde_json::json!(sources.ignore).to_string()),
    ];
    always.into_iter().chain(weights).collect()
}

fn given<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "default".to_string(), |value| value.to_string())
}

/// Every setting: one that is added does not compile until it is listed or left out with a reason.
fn of_settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let Settings {
        hold,
        selection,
        curvature,
        damping,
        l2,
        rule,
        calibration,
        target,
        stages,
        iterations,
        limits,
        precondition,
        certificate,
        gate,
        if_empty,
        memory: _,
        seed,
    } = settings;
    let Criteria { method, perturbations, sigma, replace, max_units, share, precision, seed: selection_seed } =
        selection;
    let Limits { tolerance, products } = limits;
    let (privacy, noise) = match certificate {
        Some(CertificateSpec { epsilon, delta, noise }) => (format!("{epsilon:?} {delta:?}"), *noise),
        None => ("none".to_string(), NoiseUnits::None),
    };
    let target = match target {
        Target::HeldOut => "held-out".to_string(),
        Target::WrongLabels => "wrong-labels".to_string(),
        Target::Class => "class".to_string(),
        Target::Loss(loss) => format!("loss {loss:?}"),
    };
    let hold = hold.as_ref().map(|HoldSettings { proxy, recipe, epochs, block, selection }| {
        let Recipe { epochs: passes, batch, rate, momentum, optimizer, weight_decay, seed, .. } = recipe;
        let Recipe { decayed, schedule, warm_up, augment, .. } = recipe;
        let (proxy, optimizer, schedule) = (proxy.name(), optimizer.name(), schedule.name());
        format!(
            "{epochs} epochs of {}, proxy {proxy}: {passes} epochs of {batch}, {optimizer}, rate {rate:?} {schedule}, momentum \
             {momentum:?}, decay {weight_decay:?} of {}, warm-up {warm_up}, {augment:?}, seed {seed}",
            match (block, selection) {
                (None, _) => "every parameter".to_string(),
                (Some(share), None) => format!("a block of {share:?}"),
                (Some(share), Some(method)) => format!("a block of {share:?} by {}", method.name()),
            },
            decayed.name(),
        )
    });
    vec![
        ("hold", hold.unwrap_or_else(|| "none".to_string())),
        ("selection", method.name().to_string()),
        ("perturbations", given(*perturbations)),
        ("sigma", format!("{sigma:?}")),
        ("replace", replace.to_string()),
        ("max_units", given(*max_units)),
        ("share", format!("{share:?}")),
        ("precision", precision.name().to_string()),
        ("selection_seed", selection_seed.to_string()),
        ("curvature", given(curvature.map(|curvature| curvature.name()))),
        ("damping", given(damping.map(|damping| format!("{damping:?}")))),
        ("l2", format!("{l2:?}")),
        ("update", rule.name().to_string()),
        ("length", calibration.name().to_string()),
        ("target", target),
        ("stages", given(*stages)),
        ("iterations", given(*iterations)),
        ("tolerance", format!("{tolerance:?}")),
        ("products", products.to_string()),
        ("precondition", precondition.to_string()),
        ("privacy", privacy),
        ("noise", noise.name().to_string()),
        ("gate", format!("{gate:?}")),
        ("if_empty", if_empty.name().to_string()),
        ("seed", seed.to_string()),
    ]
}

/// The hash of samples as they are after normalisation.
///
/// # Errors
/// Where one cannot be read.
pub fn of_samples(samples: &Samples) -> Result<String> {
    let mut digest = hash::Running::default();
    samples.each(|image| digest.add(image.iter().map(|value| value.to_le_bytes())))?;
    digest.add(samples.y.words().iter().map(|label| label.to_le_bytes()));
    Ok(digest.text())
}

fn of_indices(indices: &[usize]) -> String {
    hash::of_numbers(indices.iter().map(|&i| (i as u64).to_le_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_changes_the_list_and_the_memory_does_not() {
        let plain = of_settings(&Settings::default());
        let mut names: Vec<&str> = plain.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        assert_eq!(of_settings(&Settings { memory: 1, ..Settings::default() }), plain);
        let certificate = CertificateSpec { epsilon: 0.5, delta: 0.1, noise: NoiseUnits::None };
        for other in [
            Settings { l2: 1e-9, ..Settings::default() },
            Settings { seed: 1, ..Settings::default() },
            Settings { stages: Some(2), ..Settings::default() },
            Settings { target: Target::Loss(1.0), ..Settings::default() },
            Settings { certificate: Some(certificate), ..Settings::default() },
        ] {
            assert_eq!(
                of_settings(&other).iter().zip(&plain).filter(|(a, b)| a != b).count(),
                1,
                "{other:?}"
            );
        }
    }

    #[test]
    fn every_choice_about_the_model_changes_the_list() {
        let of = |choices: Choices, ignore: &[&str]| {
            let ignore = ignore.iter().map(ToString::to_string).collect();
            of_model(&Sources { choices, ignore, ..Sources::default() })
        };
        let plain = || Choices::default();
        let lists = [
            of(plain(), &[]),
            of(Choices { arch: Some("vit".into()), ..plain() }, &[]),
            of(Choices { heads: Some(3), ..plain() }, &[]),
            of(Choices { stem: Some(Stem::Stride2), ..plain() }, &[]),
            of(plain(), &["a", "b"]),
            of(plain(), &["a\", \"b"]),
            of_model(&Sources { weights: vec!["ema".into()], ..Sources::default() }),
        ];
        for (i, list) in lists.iter().enumerate() {
            assert!(lists[..i].iter().all(|other| other != list), "{list:?}");
        }
    }

    #[test]
    fn identities_of_other_versions_are_told_apart() {
        assert!(!is_of_another_version(&format!("{VERSION}-00ff")));
        for other in ["00ff", &format!("{VERSION}ff"), &format!("{VERSION}{VERSION}-00ff"), "5-00", ""] {
            assert!(is_of_another_version(other), "{other}");
        }
    }
}
