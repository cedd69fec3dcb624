//! The evidence that units are chosen by: copies of a request are perturbed and observed, or its gradient taken.

use std::sync::atomic::AtomicBool;

use crate::block::Block;
use crate::data::Samples;
use crate::device::Device;
use crate::error::{Error, Result, check_stop};
use crate::net::{Network, evaluate};
use crate::observe::observe_in_place;
use crate::ops::Precision;
use crate::ops::philox::{Stream, Use};
use crate::perturb::{Noise, perturb_request};
use crate::select::{Criteria, Evidence, Method, Selection, choose};

/// Traces of a lowered precision that are made again in f32, and the copies of each that are.
const COMPARED_TRACES: usize = 4;
const COMPARED_COPIES: usize = 200;

/// Runs what passes a choice by these criteria needs.
///
/// # Errors
/// Where the request is empty or a pass fails, or the user stops between two voters.
pub fn observe_request(
    device: &Device,
    net: &Network,
    samples: &Samples,
    request: &[usize],
    criteria: &Criteria,
    stop: &AtomicBool,
) -> Result<Evidence> {
    if request.is_empty() {
        return Err(Error::config("an empty request"));
    }
    criteria.precision.check(device)?;
    let trace = |request: &[usize], copies: usize, precision: Precision| {
        check_stop(stop)?;
        let Criteria { sigma, replace, seed, .. } = *criteria;
        let noise = Noise { sigma, replace, seed };
        let copies = perturb_request(samples, request, &net.ordinary, copies, noise)?;
        observe_in_place(device, net, &copies, precision)
    };
    let (traces, copies) = criteria.copies(request.len());
    let lowered = criteria.precision != Precision::F32;
    match criteria.method {
        Method::Full | Method::Output | Method::Random => Ok(Evidence::Nothing),
        Method::Gradient => {
            let block = Block::all(net)?;
            let gradient = block.gradient(device, net, &samples.subset(request))?;
            Ok(Evidence::Norms(block.norms(&gradient)))
        }
        Method::Foci | Method::Cheap | Method::One => {
            let of_request = trace(request, copies, criteria.precision)?;
            let compared = copies.min(COMPARED_COPIES);
            let exact = lowered.then(|| trace(request, compared, Precision::F32)).transpose()?;
            Ok(Evidence::Request(of_request, exact))
        }
        Method::Vote => {
            let voters: Vec<usize> = match request.len() > traces {
                true => {
                    let chosen = Stream::new(criteria.seed, Use::Choice, 2).choose(request.len(), traces);
                    chosen.into_iter().map(|i| request[i]).collect()
                }
                false => request.to_vec(),
            };
            let each = |voters: &[usize], copies, precision| {
                voters.iter().map(|&voter| trace(&[voter], copies, precision)).collect::<Result<Vec<_>>>()
            };
            let of_voters = each(&voters, copies, criteria.precision)?;
            let compared = if lowered { &voters[..voters.len().min(COMPARED_TRACES)] } else { &[] };
            let exact = each(compared, copies.min(COMPARED_COPIES), Precision::F32)?;
            let surprisals = evaluate(device, net, &samples.subset(&voters))?.surprisals;
            Ok(Evidence::Voters(of_voters, exact, surprisals))
        }
    }
}

/// [`observe_request`], then [`choose`].
///
/// # Errors
/// As these.
pub fn select(
    device: &Device,
    net: &Network,
    samples: &Samples,
    request: &[usize],
    criteria: &Criteria,
    stop: &AtomicBool,
) -> Result<Selection> {
    let evidence = observe_request(device, net, samples, request, criteria, stop)?;
    choose(device, net, &evidence, criteria, stop)
}
