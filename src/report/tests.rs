//! Pages are whole and safe whatever their texts and numbers are, and lead with what happened.

use std::collections::BTreeMap;

use super::page::escaped;
use super::*;
use crate::audit::{Performance, Snapshot};
use crate::clock::Phase;
use crate::comparison::{Finding, Flag, Row, Sample, Spread};
use crate::data::digits;
use crate::device::{self, Device};
use crate::options::ScrubOptions;
use crate::outcome::{
    Account, BeforeAfter, Changed, Epochs, Fate, HoldAccount, Outcome, Record, SelectionAccount, StepAccount,
    Written,
};
use crate::request::Request;
use crate::run::Scrubbed;
use crate::select::Selection;
use crate::session::Session;
use crate::soft_label::Summary;
use crate::task::{Approximation, Procedure, ProxyKind};
use crate::update::Scaled;
use crate::zoo;

const NASTY: &str = "<script>alert(\"1\")</script> & 'x' é";

fn check(page: &str) {
    // The letters of pictures are no words.
    let parts: Vec<&str> = page.split(";base64,").collect();
    let rest = parts[1..].iter().map(|part| &part[part.find('"').unwrap()..]);
    let page = &[parts[0]].into_iter().chain(rest).collect::<String>();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    for word in ["<script", "javascript:", "http://", "https://", "url(", "@import", "NaN", "inf"] {
        assert!(!page.contains(word), "`{word}` is in the page");
    }
    // Tags open and close in turn.
    let mut open: Vec<&str> = vec![];
    for tag in page.split('<').skip(1) {
        let tag = tag.split('>').next().unwrap();
        let name = tag.split_whitespace().next().unwrap().trim_end_matches('/');
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') || ["!DOCTYPE", "meta"].contains(&name) => {}
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn snapshot(loss: f64, forget: f64, others: f64) -> Snapshot {
    let of = |loss, accuracy| Performance { loss, accuracy };
    Snapshot { forget: of(loss, forget), retain: of(0.1, others), validation: Some(of(0.2, others - 0.1)) }
}

fn account(after: Snapshot) -> Account {
    let selection = SelectionAccount {
        first_t: Some(0.4),
        noise_level: Some(0.1),
        scores: vec![0.4, 0.2, f64::NAN],
        ..SelectionAccount::from(&Selection::default())
    };
    let step = StepAccount {
        parameters: 3,
        curvature: Approximation::Ggn,
        solves: vec![],
        length: Scaled { scale: 3.0, target: Some(2.0), loss: 2.0, reached: true },
        step_norm: 0.1,
        after,
        gradient_norm: BeforeAfter { before: 1.0, after: f64::NAN },
        gradient_share_removed: 0.5,
        certificate: None,
    };
    let seconds = BTreeMap::from([(Phase::Select, 0.2), (Phase::Solve, 0.1)]);
    Account { n: 10, m: 2, selection, before: snapshot(0.1, 1.0, 1.0), step: Some(step), hold: None, seconds }
}

fn record(batch: usize, removed: bool, after: Snapshot) -> Record {
    Record {
        batch,
        indices: vec![2 * batch, 2 * batch + 1],
        fate: if removed { Fate::Removed } else { Fate::Refused },
        notes: vec![NASTY.into()],
        units: vec![(NASTY.into(), 3)],
        account: account(after),
        changed: Changed::Block,
        values: vec![],
        soft_labels: vec![],
    }
}

/// Records of a hold.
fn held(mut record: Record) -> Record {
    let step = record.account.step.take().unwrap();
    let of = |accuracy| Summary { accuracy, loss: 1.0, confidence: 0.5 };
    record.account.hold = Some(HoldAccount {
        proxy: ProxyKind::Trained,
        epochs: Epochs { proxy: 4, hold: 4, cost: 12.0 },
        mini_batches: 8,
        nudge: 0.1,
        target: of(0.75),
        reached: of(0.5),
        after: step.after,
    });
    record
}

/// The page of these records, as if they were made on a small network.
fn scrubbed(records: Vec<Record>, options: &ScrubOptions) -> String {
    page(records, options, None)
}

/// A small network and its data.
fn small(command: &str) -> Session {
    let samples = digits().unwrap().part(0..120).unwrap();
    let validation = digits().unwrap().part(120..180).unwrap();
    let network = zoo::create("mlp:4", samples.shape(), 10, 1).unwrap().network.freeze();
    let session = Session::new(Device::cpu().unwrap(), network, samples).unwrap();
    session.with_validation(validation).unwrap().with_command(command.into())
}

/// The same where the files do as `written` tells.
fn page(records: Vec<Record>, options: &ScrubOptions, written: Option<Written>) -> String {
    let session = small(NASTY);
    let request = Request::new(&session, vec![0, 1, 2, 3], options).unwrap();
    let removed = crate::outcome::removed(&records).len();
    let outcome = Outcome {
        removed,
        not_removed: 4 - removed,
        notes: vec![NASTY.into()],
        ..nothing(&session, &request)
    };
    let files = ModelFiles {
        files: vec![NASTY.into()],
        changed_values: 1234,
        updates_lost_in_stored_type: 1,
        sha256_before: NASTY.into(),
        sha256_after: "b".into(),
    };
    let mut after = session.network().clone();
    after.params.iter_mut().for_each(|param| param.value.iter_mut().for_each(|value| *value *= 0.5));
    let outcome = Outcome { records, changed_values: 1234, lost_updates: 1, written, ..outcome };
    let report = ScrubReport {
        session: &session,
        request: &request,
        outcome: &outcome,
        files: Some(files),
        after: Some(&after),
        identity: None,
    };
    scrub(&report).unwrap()
}

/// The outcome of a request of which nothing was carried out.
fn nothing(session: &Session, request: &Request) -> Outcome {
    let scrubbed = Scrubbed { network: session.network().clone(), records: vec![], notes: vec![] };
    session.outcome(request, scrubbed, 1.0)
}

fn verified() -> VerifyReport {
    let row = Row {
        forget_accuracy: 0.5,
        forget_loss: 1.0,
        retain_accuracy: f64::INFINITY,
        retain_loss: f64::NAN,
        test_accuracy: 0.9,
        test_loss: 0.3,
        auc: 0.5,
        likelihood_auc: None,
        likelihood_members: None,
        rank: None,
        rank_lowest: None,
        rank_highest: None,
        rank_beyond: None,
        divergence_forget: None,
        divergence_test: None,
        weight_distance: None,
        average_gap: None,
        likelihood_members_1: None,
        likelihood_members_01: None,
        relearned_1: 1.0,
        relearned_3: 0.5,
        relearned_10: 0.1,
    };
    let model = ModelReport { path: Some(NASTY.into()), sha256: Some("a".into()), measures: row };
    let sample = |index, after, rank| SampleReport {
        index,
        label: Label::Class(3),
        losses: Sample { before: 0.1, after, references: vec![1.0, 3.0], rank, likelihood_ratio: None },
    };
    let finding = |flag| Finding { flag, measure: "auc", text: NASTY.into() };
    VerifyReport {
        scrubjay: "0",
        report: "verify",
        command: Some(NASTY.into()),
        family: "mlp",
        device: device::Report { name: "cpu", why: NASTY.into(), threads: 2 },
        sets: SetsReport {
            data: Some(NASTY.into()),
            forget: Forgotten { spec: Some(NASTY.into()), n: 2, class: Some(3) },
            retain: Chosen { spec: None, n: 3 },
            test: TestSet { data: Some(NASTY.into()), n: 20 },
            unseen: 20,
        },
        before: model.clone(),
        after: model.clone(),
        references: vec![model.clone(), model],
        retrained: BTreeMap::from([("auc", Some(Spread { mean: 0.5, deviation: Some(0.1) }))]),
        gaps: BTreeMap::from([("auc", Gap { before: Some(0.1), after: None })]),
        findings: vec![finding(Flag::Remembers), finding(Flag::OverForgets)],
        remembered: true,
        notes: vec![NASTY.into()],
        samples: vec![sample(0, 2.0, 50.0), sample(1, 90.0, 100.0)],
        definitions: BTreeMap::from([("auc", "what it is")]),
        seconds: 1.0,
    }
}

/// The options of the method that takes a step.
fn step() -> ScrubOptions {
    ScrubOptions { method: Some(Procedure::Lcodec), ..ScrubOptions::DEFAULT }
}

fn moved(batch: usize) -> Record {
    record(batch, true, snapshot(2.0, 0.5, 0.995))
}

#[test]
fn pages_are_whole_and_hold_no_script_whatever_their_texts_are() {
    let two = scrubbed(vec![moved(0), moved(1)], &step());
    let refused = scrubbed(vec![moved(0), record(1, false, snapshot(2.0, 0.5, 0.9))], &step());
    for page in [&two, &refused, &scrubbed(vec![moved(0)], &step()), &verify(&verified())] {
        check(page);
        assert!(page.contains(&escaped(NASTY)) && page.contains("<svg"));
    }
    assert!(refused.contains("Batch 1 is still in the model") && !two.contains("still in the model"));
    assert!(two.contains("1,234"));
}

#[test]
fn a_page_shows_its_samples_unless_it_is_not_to() {
    let session = |shown: bool| small(NASTY).with_samples_shown(shown);
    let pictures = |page: &str| page.matches("<img src=\"data:image/png;base64,").count();
    let planned = |shown: bool, count: usize| {
        let session = session(shown);
        let request = Request::new(&session, (0..count).collect::<Vec<_>>(), &step()).unwrap();
        let doubts = vec![NASTY.to_string()];
        planned(&session, &request, &session.estimate(&request).unwrap(), &doubts, 1.0).unwrap()
    };
    let (few, many, none) = (planned(true, 4), planned(true, 40), planned(false, 4));
    [&few, &many, &none].into_iter().for_each(|page| check(page));
    assert_eq!([&few, &many, &none].map(|page| pictures(page)), [4, 24, 0]);
    assert!(few.contains("4 of 4") && many.contains("The first 24 of 40") && few.contains(&escaped(NASTY)));
    assert_eq!(pictures(&scrubbed(vec![moved(0)], &step())), 4); // no map of a perceptron
    assert!(scrubbed(vec![moved(0)], &step()).contains(" → "));
}

#[test]
fn a_convolutional_network_has_maps_before_and_after() {
    let samples = digits().unwrap().part(0..60).unwrap();
    let network = zoo::create("cnn:4-4", samples.shape(), 10, 1).unwrap().network.freeze();
    let session = Session::new(Device::cpu().unwrap(), network, samples).unwrap();
    let mut after = session.network().clone();
    after.params.iter_mut().for_each(|param| param.value.iter_mut().for_each(|value| *value *= 0.5));
    let request = Request::new(&session, (0..9).collect::<Vec<_>>(), &step()).unwrap();
    let outcome = nothing(&session, &request);
    let (session, request, outcome) = (&session, &request, &outcome);
    let report = ScrubReport { session, request, outcome, files: None, after: Some(&after), identity: None };
    let page = scrub(&report).unwrap();
    check(&page);
    assert_eq!(page.matches("<img").count(), 9 + 3 * 6);
    assert!(page.contains("Where the network is active") && page.contains("over the 4 channels of"));
}

#[test]
fn a_page_leads_with_what_the_numbers_show() {
    let verdict = |after| {
        let page = scrubbed(vec![record(0, true, after)], &step());
        let banner = |tone: &str| page.matches(&format!("<p class=\"banner {tone}\">")).count();
        [banner("good"), banner("warning"), banner("neutral"), banner("bad")]
    };
    assert_eq!(verdict(snapshot(2.0, 0.5, 1.0)), [2, 0, 1, 0]); // moved, undamaged, what is not known
    assert_eq!(verdict(snapshot(2.0, 0.5, 0.9)), [1, 1, 1, 0]); // damaged
    assert_eq!(verdict(snapshot(0.1, 1.0, 1.0)), [1, 1, 1, 0]); // unmoved
}

#[test]
fn what_rounding_took_back_is_not_shown_as_removed() {
    let before = snapshot(0.1, 1.0, 1.0);
    let written = Written { before, after: before, removed: false };
    let page = page(vec![moved(0)], &step(), Some(written));
    assert!(page.contains("The samples are still in the model") && !page.contains("removed samples moved"));
}

#[test]
fn nothing_done_and_nothing_measured_are_pages_too() {
    check(&scrubbed(vec![], &step()));
    let mut untried = record(0, false, snapshot(f64::NAN, f64::NAN, f64::NAN)); // no unit depends on it
    untried.account.step = None;
    check(&scrubbed(vec![untried], &step()));
    check(&scrubbed(vec![record(0, true, snapshot(f64::NAN, f64::INFINITY, f64::NAN))], &step()));
    let empty = VerifyReport { samples: vec![], references: vec![], findings: vec![], ..verified() };
    check(&verify(&empty));
}

#[test]
fn a_hold_shows_its_soft_labels_and_no_choice_of_units() {
    let options = ScrubOptions { method: Some(Procedure::Hold), ..ScrubOptions::DEFAULT };
    let (held, chosen) = (scrubbed(vec![held(moved(0))], &options), scrubbed(vec![moved(0)], &step()));
    assert!(held.contains("75.0 / 50.0") && !held.contains("noise level"));
    assert!(chosen.contains("noise level") && !chosen.contains("soft label"));
}

#[test]
fn flags_both_ways_are_shown_alike_and_little_to_forget_is_no_praise() {
    let count =
        |report: &VerifyReport, tone: &str| verify(report).matches(&format!("banner {tone}\"")).count();
    assert_eq!([count(&verified(), "bad"), count(&verified(), "odd"), count(&verified(), "good")], [1, 1, 0]);
    let none = VerifyReport { findings: vec![], ..verified() };
    assert_eq!([count(&none, "good"), count(&none, "neutral")], [1, 0]);
    let little = VerifyReport { remembered: false, ..none };
    assert_eq!([count(&little, "good"), count(&little, "neutral")], [0, 1]);
}

#[test]
fn many_layers_stand_by_stage() {
    let of = scrub::stage;
    assert_eq!(
        ["layer1.0.conv1", "blocks.3.attn.qkv", "vit.encoder.layer.3.output", "fc", "conv1"].map(of),
        ["layer1", "blocks.3", "vit.encoder.layer.3", "fc", "conv1"]
    );
}
