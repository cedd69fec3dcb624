//! A hold within a budget of passes over the retained samples.
//!
//! What a hold costs is known before it begins ([`crate::hold::epochs`]). Where that is more than the budget, the trained proxy
//! gives way to the labels of the nearest retained samples, which cost no pass. Where that is still too much, the hold trains on a
//! part of the retained samples.

use crate::error::{Error, Result};
use crate::hold::epochs;
use crate::task::{HoldSettings, ProxyKind};

/// The fewest retained samples that a budget leaves of more.
pub const FEWEST: usize = 1024;

/// What fits a budget.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    /// Where the soft labels come from.
    pub proxy: ProxyKind,
    /// Retained samples.
    pub retained: usize,
    /// Passes over all retained samples that it costs.
    pub cost: f64,
}

/// A hold as `settings` say, at most `budget` passes over `all` retained samples long. Behind each of its batches as many samples are
/// held as `held` says; only images have neighbours.
///
/// # Errors
/// Where the least that the hold costs is more than the budget.
pub fn fit(budget: f64, settings: &HoldSettings, all: usize, held: &[usize], images: bool) -> Result<Fitted> {
    let fitted = |proxy: ProxyKind, retained: usize| {
        let settings = HoldSettings { proxy, ..settings.clone() };
        let passes: f64 = held.iter().map(|&held| epochs(&settings, retained, held).cost).sum();
        Fitted { proxy, retained, cost: passes * retained as f64 / all as f64 }
    };
    let as_asked = fitted(settings.proxy, all);
    if as_asked.cost <= budget {
        return Ok(as_asked);
    }
    let proxy = match settings.proxy {
        ProxyKind::Trained if images => ProxyKind::Neighbours,
        other => other,
    };
    let (mut fits, mut exceeds) = (FEWEST.min(all), all + 1);
    let least = fitted(proxy, fits);
    if least.cost > budget {
        return Err(Error::config(format!(
            "--budget {budget} is too little: the least that this hold costs is {:.2} passes over the {all} retained samples, with \
             {fits} of them; fewer --hold-epochs or a larger --batch cost less",
            (100.0 * least.cost).ceil() / 100.0
        )));
    }
    // The cost rises with the number of samples.
    while exceeds - fits > 1 {
        let middle = fits + (exceeds - fits) / 2;
        if fitted(proxy, middle).cost <= budget { fits = middle } else { exceeds = middle }
    }
    Ok(fitted(proxy, fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::train::Recipe;

    fn settings(proxy: ProxyKind) -> HoldSettings {
        let recipe = Recipe { epochs: 4, ..Recipe::default() };
        HoldSettings { proxy, recipe, epochs: 4, block: None, selection: None }
    }

    #[test]
    fn the_proxy_gives_way_before_the_retained_samples_do() {
        let of =
            |budget: f64, images: bool| fit(budget, &settings(ProxyKind::Trained), 50_000, &[64], images);
        // 4 passes of the proxy, 4 of the hold, each twice as long by the forgotten samples: 4 + 4 (1 + 782 · 64 / 50,000).
        let whole = of(12.01, true).unwrap();
        assert_eq!((whole.proxy, whole.retained), (ProxyKind::Trained, 50_000));
        assert!((whole.cost - (8.0 + 4.0 * 782.0 * 64.0 / 50_000.0)).abs() < 1e-9, "{}", whole.cost);
        let without_proxy = of(12.0, true).unwrap();
        assert_eq!((without_proxy.proxy, without_proxy.retained), (ProxyKind::Neighbours, 50_000));
        let part = of(2.0, true).unwrap();
        assert_eq!(part.proxy, ProxyKind::Neighbours);
        // Of the samples that a budget allows it takes as many as it can.
        let of_part = |n: usize| 4.0 * (n + n.div_ceil(64) * 64) as f64 / 50_000.0;
        assert!(of_part(part.retained) <= 2.0 && of_part(part.retained + 1) > 2.0, "{part:?}");
        let texts = of(4.0, false).unwrap();
        assert_eq!(texts.proxy, ProxyKind::Trained);
        assert!((1024..20_000).contains(&texts.retained) && texts.cost <= 4.0, "{texts:?}");
    }

    #[test]
    fn every_batch_counts_and_what_is_too_little_is_refused_with_the_least_that_does() {
        let neighbours = settings(ProxyKind::Neighbours);
        let one = fit(1.0, &neighbours, 50_000, &[1], true).unwrap();
        let four = fit(1.0, &neighbours, 50_000, &[1, 2, 3, 4], true).unwrap();
        assert!(one.retained > 3 * four.retained, "{one:?} {four:?}");
        let error = fit(0.05, &neighbours, 50_000, &[64], true).unwrap_err().to_string();
        assert!(error.contains("0.17 passes over the 50000 retained samples, with 1024"), "{error}");
        let least = fit(0.17, &neighbours, 50_000, &[64], true).unwrap();
        assert!(least.retained >= FEWEST && least.cost <= 0.17, "{least:?}");
        // A smaller set is not cut at all.
        assert!(fit(1.0, &neighbours, 500, &[10], true).is_err());
    }
}
