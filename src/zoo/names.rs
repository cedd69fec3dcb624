//! Which family the names of a model's tensors belong to, and how far they fall short where they fit none.

use super::reading::Reading;
pub(super) use crate::checkpoint::matches;
use crate::checkpoint::plays_no_part;
use crate::error::{Error, Result};
use crate::net::Builder;

/// One library's names of a family's tensors. In a pattern `#` stands for a number, `*` for anything, and `|` separates
/// alternatives.
pub(super) struct Form {
    /// Patterns that tell this form from others; each has a tensor.
    pub needs: &'static [&'static str],
    /// The other tensors that it may have.
    pub others: &'static [&'static str],
    /// Patterns that no tensor has.
    pub lacks: &'static [&'static str],
}

/// How the names of a model compare with a form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fit {
    /// Needed and not there.
    pub missing: Vec<String>,
    /// There, and without a place in the form.
    pub misplaced: Vec<String>,
    /// Whether the model is taken for one of this form; tensors left over are refused later, by name.
    pub fits: bool,
    /// How many tensors have a place.
    pub placed: usize,
}

fn any(patterns: &str, name: &str) -> bool {
    patterns.split('|').any(|pattern| matches(pattern, name))
}

impl Form {
    fn fit(&self, names: &[String]) -> Fit {
        let absent = self.needs.iter().filter(|need| !names.iter().any(|name| any(need, name)));
        let missing: Vec<String> =
            absent.filter_map(|need| need.split('|').next()).map(|need| need.replace('#', "0")).collect();
        let lacking = |name: &str| self.lacks.iter().any(|pattern| any(pattern, name));
        let placed = |name: &String| {
            let known = self.needs.iter().chain(self.others).any(|pattern| any(pattern, name));
            (known && !lacking(name)) || plays_no_part(name)
        };
        let misplaced: Vec<String> = names.iter().filter(|name| !placed(name)).cloned().collect();
        let fits = missing.is_empty() && !names.iter().any(|name| lacking(name));
        Fit { missing, placed: names.len() - misplaced.len(), misplaced, fits }
    }
}

/// The best fit of a family's forms.
pub(super) fn fit(forms: &[Form], names: &[String]) -> Fit {
    let fits = forms.iter().map(|form| form.fit(names));
    fits.min_by_key(|fit| (!fit.fits, fit.missing.len() + fit.misplaced.len())).unwrap_or_default()
}

impl Fit {
    /// What does not fit, in words.
    pub fn misfits(&self) -> String {
        let parts = [(&self.missing, "missing"), (&self.misplaced, "without a place in it")];
        let parts = parts.iter().filter(|(names, _)| !names.is_empty());
        let parts: Vec<String> = parts
            .map(|(names, what)| {
                format!("{} {} {what}", listed(names), if names.len() == 1 { "is" } else { "are" })
            })
            .collect();
        parts.join("; ")
    }
}

/// The first few of a list of names.
pub(super) fn listed(names: &[String]) -> String {
    let first: Vec<String> = names.iter().take(4).map(|name| format!("`{name}`")).collect();
    match names.len() - first.len() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// The module name of the head: one of `usual`, or the only layer in a container of that name, as
/// `fc = Sequential(Dropout, Linear)` has it.
///
/// # Errors
/// Where there is none, or the container has several layers.
pub(super) fn head(b: &Builder, reading: &mut Reading, usual: &[&str]) -> Result<String> {
    if let Some(name) = usual.iter().find(|name| b.has(&format!("{name}.weight"))) {
        return Ok((*name).to_string());
    }
    for name in usual {
        let inside: Vec<&String> =
            reading.names.iter().filter(|n| n.starts_with(&format!("{name}."))).collect();
        let layers: Vec<&str> = inside.iter().filter_map(|n| n.strip_suffix(".weight")).collect();
        match layers[..] {
            [] => {}
            [layer] if b.side(&format!("{layer}.weight"), 1).is_ok() => {
                let layer = layer.to_string();
                reading.assume(format!(
                    "beside the layer `{layer}` the head `{name}` computes nothing (dropout)"
                ));
                return Ok(layer);
            }
            _ => {
                let layers: Vec<String> = layers.iter().map(|layer| (*layer).to_string()).collect();
                return Err(Error::config(format!(
                    "the head `{name}` is not one linear layer: it has {}, and what stands between cannot be told",
                    listed(&layers)
                )));
            }
        }
    }
    Err(Error::config(format!("the head is missing: there is no tensor `{}.weight`", usual[0])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_tells_what_is_missing_and_what_has_no_place() {
        const FORM: Form = Form {
            needs: &["stem.weight", "fc.weight|fc.#.weight"],
            others: &["layer#.#.conv#.weight", "stem.bias"],
            lacks: &["layer4.*"],
        };
        let fit = |names: &[&str]| FORM.fit(&names.iter().map(|name| name.to_string()).collect::<Vec<_>>());
        assert!(
            fit(&["stem.weight", "fc.1.weight", "layer1.12.conv2.weight", "bn.num_batches_tracked"]).fits
        );
        let near = fit(&["stem.weight", "fc.bias", "layer1.a.conv2.weight"]);
        assert_eq!(near.missing, ["fc.weight"]);
        assert_eq!(near.misplaced, ["fc.bias", "layer1.a.conv2.weight"]);
        assert_eq!(
            near.misfits(),
            "`fc.weight` is missing; `fc.bias`, `layer1.a.conv2.weight` are without a place in it"
        );
        let lacking = fit(&["stem.weight", "fc.weight", "layer4.0.conv1.weight"]);
        assert_eq!((lacking.fits, lacking.misplaced.len()), (false, 1));
    }
}
