//! 50 messages and one class of questions removed from small DistilBERTs; beside retraining, a random block and no update.
//!
//! The data are the SMS Spam Collection (ham or spam) and TREC's questions (six classes of what is asked for).
//!
//!     SCRUBJAY_DATA=DATA cargo run --release --example messages

mod beside;

use std::path::Path;

use beside::{Removals, data, folder, lines};
use scrubjay::train::Optimizer;
use scrubjay::training::TrainOptions;
use scrubjay::{Error, Result, Sources};

fn main() -> Result<()> {
    let options = TrainOptions { optimizer: Optimizer::Adam, lr: 1e-3, ..TrainOptions::default() };

    let (of_sms, messages) = (folder("messages")?, text(&data("text/sms-spam/SMSSpamCollection")?)?);
    let part = |name: &str, from: usize, to: usize| {
        lines(of_sms.join(name), messages.lines().skip(from).take(to - from).map(String::from))
    };
    Removals {
        name: "messages",
        sources: Sources {
            data: part("train.txt", 0, 3000)?,
            validation: Some(part("val.txt", 3000, 3800)?),
            ..Sources::default()
        },
        test: part("test.txt", 3800, 5574)?,
        arch: "distilbert:64-2-4-32",
        options: TrainOptions { epochs: 4, ..options.clone() },
        seeds: 3,
        removals: vec![("50 messages of SMS Spam", "n:50@7")],
    }
    .compare()?;

    let of_trec = folder("questions")?;
    let (train, test) =
        (text(&data("text/trec/train_5500.label")?)?, text(&data("text/trec/TREC_10.label")?)?);
    // `LOC:city Where ..`: the class before the colon, the question behind the blank.
    let coarse = |line: &str| Some(format!("{}\t{}", line.split_once(':')?.0, line.split_once(' ')?.1));
    let part = |name: &str, text: &str, from: usize, to: usize| {
        lines(of_trec.join(name), text.lines().skip(from).take(to - from).filter_map(coarse))
    };
    Removals {
        name: "questions",
        sources: Sources {
            data: part("train.txt", &train, 0, 4952)?,
            validation: Some(part("val.txt", &train, 4952, 5452)?),
            ..Sources::default()
        },
        test: part("test.txt", &test, 0, 500)?,
        arch: "distilbert:64-2-4-16",
        options: TrainOptions { epochs: 8, ..options },
        seeds: 3,
        removals: vec![("The class LOC of TREC", "class:LOC")],
    }
    .compare()
}

/// A file as UTF-8; TREC's are in Latin-1.
fn text(path: &Path) -> Result<String> {
    let bytes = std::fs::read(path).map_err(Error::io(path))?;
    Ok(String::from_utf8(bytes)
        .unwrap_or_else(|error| error.into_bytes().into_iter().map(char::from).collect()))
}
