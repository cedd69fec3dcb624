//! Texts as people keep them, through every command: a table of messages with words as labels, a vocabulary made of them, a
//! small DistilBERT, and requests by class and by sender.

use std::fmt::Write;
use std::ops::Deref;

use serde_json::{Value, json};

use crate::tiny::Folder;

const SPAM: [&str; 6] = ["free", "prize", "winner", "cash", "claim", "urgent"];
const HAM: [&str; 6] = ["lunch", "home", "later", "tomorrow", "thanks", "meeting"];
const SENDERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

/// Messages in a folder of their own.
struct Messages(Folder);

impl Deref for Messages {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

/// A table of `n` messages; every third is spam.
fn table(n: usize) -> String {
    let mut text = String::from("sender,message,label\n");
    for i in 0..n {
        let (words, label) = if i % 3 == 0 { (SPAM, "spam") } else { (HAM, "ham") };
        let word = |k: usize| words[(i * 7 + k * k * 5 + i / 6) % words.len()];
        writeln!(text, "{},\"{}, {} {}!\",{label}", SENDERS[i % 4], word(0), word(1), word(2)).unwrap();
    }
    text
}

impl Messages {
    fn new() -> Messages {
        let messages = Messages(Folder::new());
        for (name, n) in [("train.csv", 120), ("val.csv", 61), ("test.csv", 90)] {
            std::fs::write(messages.at(name), table(n)).unwrap();
        }
        messages
    }
}

const TRAIN: &str = "train --arch distilbert:16-1-2-12 --optimizer adam --lr 5e-3 --weight-decay 0 --batch-size 16 --device cpu \
                     --data @train.csv";
const SCRUB: &str =
    "scrub --perturbations 60 --gate 100 --if-empty cheap --device cpu --data @train.csv --val @val.csv";

#[test]
fn messages_go_from_a_table_to_a_checked_removal() {
    let messages = Messages::new();
    let run = messages.done(&format!("{TRAIN} --val @val.csv --epochs 6 --out @m"));
    for words in ["texts of column `message`, labels of column `label`", "ham, spam", "up to 7 tokens"] {
        assert!(run.err.contains(words), "{words}: {}", run.err);
    }
    let config = messages.json("m/config.json");
    assert_eq!(config["id2label"], json!({"0": "ham", "1": "spam"}));
    assert_eq!((&config["cls_token_id"], &config["max_position_embeddings"]), (&json!(2), &json!(12)));
    let words = std::fs::read_to_string(messages.at("m/vocab.txt")).unwrap();
    assert!(
        words.lines().any(|word| word == "prize") && config["vocab_size"] == words.lines().count(),
        "{config}"
    );
    let eval = messages.done("eval --model @m --data @test.csv --device cpu --json");
    let eval: Value = serde_json::from_str(&eval.out).unwrap();
    assert!(eval["accuracy"].as_f64().unwrap() > 0.9, "{eval}");

    let forget = "--forget where:sender=alice&label!=spam";
    messages.refused(
        &format!("{SCRUB} --model @m {forget} --out @out"),
        &[1, 2],
        &["no column `label`", "`sender`"],
    );
    messages.refused(
        &format!("{SCRUB} --model @m --forget class:spma --out @out"),
        &[1, 2],
        &["`spma`", "`spam`"],
    );
    assert!(!messages.at("out").exists());
    let run = messages.done(&format!(
        "{SCRUB} --model @m --forget where:sender=alice --batch 30 --target-loss 1 --out @out"
    ));
    assert!(run.err.contains("to be forgotten: 30 samples of 120\n        0  spam  "), "{}", run.err);
    let first = &messages.json("out/report.json")["request"]["first"];
    assert_eq!((&first[1]["index"], &first[1]["class"]), (&json!(4), &json!("ham")), "{first}");
    for name in ["vocab.txt", "tokenizer_config.json"] {
        assert_eq!(
            std::fs::read(messages.at("out").join(name)).unwrap(),
            std::fs::read(messages.at("m").join(name)).unwrap()
        );
    }
    let run = messages.done(&format!("{SCRUB} --model @m --forget class:spam --out @class --dry-run"));
    assert!(run.err.contains("40 samples of 120") && run.out.contains("nothing was written"), "{}", run.err);

    messages.done(&format!("{TRAIN} --exclude where:sender=alice --seeds 2 --epochs 2 --out @never"));
    let line = "verify --before @m --after @out --reference @never/seed-0 @never/seed-1 --data @train.csv --test @test.csv";
    let run = messages.run(&format!("{line} --forget where:sender=alice --device cpu"));
    assert!([0, 3].contains(&run.code), "{}", run.err);
    std::fs::write(messages.at("never/seed-1/vocab.txt"), words.replace("prize", "price")).unwrap();
    messages.refused(
        &format!("{line} --forget where:sender=alice --device cpu"),
        &[1, 2],
        &["seed-1", "another tokenizer"],
    );
}

#[test]
fn other_forms_of_the_same_messages_give_the_same_model() {
    let messages = Messages::new();
    let mut reader = csv::Reader::from_path(messages.at("train.csv")).unwrap();
    let (mut lines, mut plain) = (String::new(), String::new());
    for row in reader.records() {
        let row = row.unwrap();
        writeln!(lines, "{}", json!({"label": &row[2], "text": &row[1], "sender": &row[0]})).unwrap();
        writeln!(plain, "{}\t{}", &row[2], &row[1]).unwrap();
    }
    std::fs::create_dir(messages.at("folder")).unwrap();
    std::fs::write(messages.at("folder/train.jsonl"), lines).unwrap();
    std::fs::write(messages.at("Messages"), plain.replace('\n', "\r\n")).unwrap();
    let model = |data: &str, out: &str| {
        messages.done(&format!("{} --epochs 1 --out @{out}", TRAIN.replace("@train.csv", data)));
        std::fs::read(messages.at(out).join("model.safetensors")).unwrap()
    };
    let expected = model("@train.csv", "csv");
    assert!(model("@folder", "jsonl") == expected && model("@Messages", "plain") == expected);
    let more = "train --model @csv --data @train.csv --epochs 1 --device cpu --out";
    messages.done(&format!("{more} @more"));
    assert!(messages.at("more/vocab.txt").is_file());
    let short = messages.done("eval --model @csv --data @test.csv --max-tokens 5 --device cpu");
    assert!(short.err.contains("were cut at 5 tokens"), "{}", short.err);
    let given = messages.done("eval --model @csv --data @test.csv --tokenizer @plain/vocab.txt --device cpu");
    assert!(given.err.contains("padded"), "{}", given.err);
    std::fs::remove_file(messages.at("csv/vocab.txt")).unwrap();
    messages.refused(
        "eval --model @csv --data @test.csv --device cpu",
        &[1, 2],
        &["test.csv", "vocab.txt", "--tokenizer"],
    );
    let small = format!("{} --epochs 1 --out @small", TRAIN.replace("16-1-2-12", "20-16-1-2-12"));
    messages.refused(&format!("{small} --tokenizer @plain"), &[1, 2], &["20 token ids", "the tokenizer"]);
    messages.refused(&format!("{TRAIN} --mean 0.5 --out @x"), &[1, 2], &["holds texts", "--mean"]);
}

#[test]
fn inspect_shows_classes_and_lengths() {
    let messages = Messages::new();
    let run = messages.done("inspect --data @train.csv");
    for words in ["samples     120", "texts       7 tokens", "0  ham", "1  spam"] {
        assert!(run.out.contains(words), "{words}: {}", run.out);
    }
    assert!(run.err.contains("texts of column `message`"), "{}", run.err);
}
