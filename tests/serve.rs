//! The queue: requests become versions and receipts, a server that is killed at any change goes on to the same bytes, and what is
//! no request is refused and blocks nothing.

#![allow(clippy::unwrap_used)] // in the helpers of tests too

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use scrubjay::device::Device;
use scrubjay::queue::{LONGEST, Metrics, Policy, QueueOptions, Responder, Served, Server, Turn};
use scrubjay::session::{Level, Session, Sources};
use scrubjay::task::Procedure;
use scrubjay::{Error, Result, ScrubOptions};
use serde_json::{Value, json};

use crate::tiny::Tiny;

/// The time at which the requests of a test were written.
fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

/// A model, its data and a spool.
struct Queue {
    tiny: Rc<Tiny>,
    /// The folder in it.
    spool: String,
    /// Seconds since `start`.
    clock: Arc<AtomicUsize>,
    log: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
}

fn options() -> QueueOptions {
    QueueOptions {
        request: ScrubOptions {
            method: Some(Procedure::Hold),
            proxy_epochs: 1,
            hold_epochs: 2,
            gate: 1.0,
            ..ScrubOptions::DEFAULT
        },
        policy: Policy { count: 2, age: Duration::from_secs(600) },
        keep: 2,
        once: true,
        poll: Duration::from_millis(100),
    }
}

impl Queue {
    fn new() -> Queue {
        Queue::of(Rc::new(Tiny::new()), "spool")
    }

    fn of(tiny: Rc<Tiny>, spool: &str) -> Queue {
        std::fs::create_dir_all(tiny.at(spool).join("incoming")).unwrap();
        let spool = spool.to_string();
        Queue { tiny, spool, clock: Arc::default(), log: Arc::default(), stop: Arc::default() }
    }

    /// Another spool for the same model and data.
    fn other(&self, spool: &str) -> Queue {
        Queue::of(self.tiny.clone(), spool)
    }

    fn folder(&self) -> PathBuf {
        self.tiny.at(&self.spool)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// A file that was written some seconds after the start, renamed in.
    fn put(&self, name: &str, bytes: &[u8], seconds: u64) {
        let (part, path) = (self.at("incoming/.part"), self.at("incoming").join(name));
        std::fs::write(&part, bytes).unwrap();
        let file = File::options().write(true).open(&part).unwrap();
        file.set_modified(start() + Duration::from_secs(seconds)).unwrap();
        std::fs::rename(part, path).unwrap();
    }

    fn ask(&self, id: &str, forget: Value, seconds: u64) {
        let text = json!({"version": 1, "id": id, "forget": forget}).to_string();
        self.put(&format!("{id}.json"), text.as_bytes(), seconds);
    }

    fn session(&self) -> Result<Session> {
        let data = self.tiny.at("train.safetensors");
        let sources =
            Sources { validation: Some(data.clone()), ..Sources::new(self.tiny.at("m.safetensors"), data) };
        let log = self.log.clone();
        let session = Session::open(Device::cpu()?, sources)?.with_stop(self.stop.clone());
        Ok(session.on_log(move |level, text| {
            if level == Level::Warning || text.starts_with("version") || text.starts_with("request") {
                log.lock().unwrap().push(text.to_string());
            }
        }))
    }

    fn server(&self, options: QueueOptions) -> Result<Server> {
        let clock = self.clock.clone();
        let now = move || start() + Duration::from_secs(clock.load(Ordering::Relaxed) as u64);
        Ok(Server::open(self.session()?, &self.folder(), options)?.with_clock(now))
    }

    fn serve(&self, options: QueueOptions) -> Served {
        self.server(options).unwrap().serve().unwrap()
    }

    fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.at(name)).unwrap_or_else(|e| panic!("{name}: {e}")))
            .unwrap()
    }

    fn names(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.at(folder)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// Checks that all is as in another spool.
    fn check(&self, expected: &BTreeMap<String, Vec<u8>>, what: &str) {
        let found = self.content();
        let names = |content: &BTreeMap<String, Vec<u8>>| content.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(expected), "{what}");
        for (name, bytes) in expected {
            assert!(found[name] == *bytes, "{what}: {name}: {}", String::from_utf8_lossy(&found[name]));
        }
    }

    /// All that is to be the same however a server was stopped: every file but the lock and the pages, JSON without times and paths.
    fn content(&self) -> BTreeMap<String, Vec<u8>> {
        let mut found = BTreeMap::new();
        gather(&self.folder(), "", &mut found);
        found
    }
}

fn gather(folder: &Path, before: &str, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let (path, name) = (entry.path(), format!("{before}{}", entry.file_name().to_string_lossy()));
        if path.is_symlink() {
            found.insert(name, std::fs::read_link(path).unwrap().to_string_lossy().into_owned().into_bytes());
        } else if path.is_dir() {
            gather(&path, &format!("{name}/"), found);
        } else if name.ends_with(".json") && !name.starts_with("incoming") {
            let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            without_times_and_paths(&mut value);
            found.insert(name, value.to_string().into_bytes());
        } else if name != "lock" && !name.ends_with(".html") {
            found.insert(name, std::fs::read(path).unwrap());
        }
    }
}

fn without_times_and_paths(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !["seconds", "finished", "model", "data", "val"].contains(&key.as_str()));
            map.values_mut().for_each(without_times_and_paths);
        }
        Value::Array(list) => list.iter_mut().for_each(without_times_and_paths),
        _ => {}
    }
}

#[test]
fn requests_become_versions_and_receipts() {
    let queue = Queue::new();
    queue.ask("a", json!("0-9"), 0);
    let b = json!({"version": 1, "id": "b", "forget": [10, 11, 9], "reason": "withdrawn", "metadata": {"case": 7}});
    queue.put("b.json", b.to_string().as_bytes(), 1);
    queue.ask("c", json!("0,12-19"), 2);
    queue.ask("d", json!([0, 10]), 3);
    assert_eq!(queue.serve(options()), Served { removed: 3, not_removed: 0, refused: 1 });

    assert_eq!(std::fs::read_link(queue.at("current")).unwrap(), Path::new("versions/0002"));
    assert_eq!(queue.names("done"), ["a.json", "b.json", "c.json"]);
    assert!(queue.names("incoming").is_empty() && queue.names("working").is_empty());
    for version in ["0001", "0002"] {
        let files = queue.names(&format!("versions/{version}"));
        assert_eq!(files, ["m.safetensors", "report.html", "report.json"]);
    }
    let receipt = queue.json("done/b.json");
    assert_eq!(receipt["state"], "removed");
    assert_eq!(
        receipt["request"],
        json!({"forget": [10, 11, 9], "reason": "withdrawn", "metadata": {"case": 7}})
    );
    assert_eq!((&receipt["samples"], &receipt["version"]), (&json!([9, 10, 11]), &json!(1)));
    assert_eq!((&receipt["batch"]["requests"], &receipt["batch"]["samples"]), (&json!(2), &json!(12)));
    assert_eq!(receipt["received"], 1_800_000_001u64);
    let batch = &receipt["batch"];
    assert_ne!(batch["before"]["forget"]["loss"], batch["after"]["forget"]["loss"]);
    let [first, second] =
        ["0001", "0002"].map(|version| queue.json(&format!("versions/{version}/report.json")));
    assert_eq!(batch["model_sha256_before"], first["model"]["sha256_before"]);
    assert_eq!(batch["model_sha256_after"], first["model"]["sha256_after"]);
    assert_eq!(first["model"]["sha256_after"], second["model"]["sha256_before"]);
    let receipt = queue.json("done/c.json");
    assert_eq!(
        (&receipt["samples"], &receipt["forgotten_before"]),
        (&json!([12, 13, 14, 15, 16, 17, 18, 19]), &json!([0]))
    );
    let receipt = queue.json("refused/d.json");
    assert_eq!((&receipt["state"], &receipt["forgotten_before"]), (&json!("refused"), &json!([0, 10])));
    assert!(receipt["reasons"][0].as_str().unwrap().contains("forgotten before"), "{receipt}");

    // The second version knows what the first one forgot: it counts as gone, is not retained, and is held.
    assert_eq!(
        (&first["request"]["forgotten_before"], &second["request"]["forgotten_before"]),
        (&json!(0), &json!(12))
    );
    assert_eq!(second["retained"]["used"], 200 - 20);
    let account = &second["records"][0]["account"];
    assert_eq!((&account["n"], &account["m"]), (&json!(200 - 12), &json!(8)));
    // One epoch of the proxy, two of the hold with all 20 forgotten samples in each of its three mini-batches.
    let cost = account["epochs"]["cost"].as_f64().unwrap();
    assert!((cost - (1.0 + 2.0 * (1.0 + 3.0 * 20.0 / 180.0))).abs() < 1e-12, "{cost}");
    queue.tiny.done("eval --model @spool/current/m.safetensors --data @train.safetensors --device cpu");

    // A version that is one too many goes, and what it forgot stays known.
    queue.ask("e", json!("20-29"), 4);
    assert_eq!(queue.serve(options()).removed, 1);
    assert_eq!(queue.names("versions"), ["0002", "0003"]);
    assert_eq!(queue.names("held"), ["0001.safetensors", "0002.safetensors", "0003.safetensors"]);
    assert_eq!(queue.json("versions/0003/report.json")["request"]["forgotten_before"], 20);
}

#[test]
fn an_id_stands_for_one_request() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.serve(options());
    let (receipt, model) = (std::fs::read(queue.at("done/a.json")).unwrap(), queue.content());
    // The same content, written in another way.
    queue.put("a.json", b"{\"forget\": [ 0,1,2 ],\n\"id\": \"a\", \"metadata\": {}, \"version\": 1}", 9);
    assert_eq!(queue.serve(options()), Served::default());
    assert_eq!(std::fs::read(queue.at("done/a.json")).unwrap(), receipt);
    queue.check(&model, "the same request again");
    queue.ask("a", json!([0, 1, 3]), 10);
    assert_eq!(queue.serve(options()).refused, 1);
    assert_eq!(std::fs::read(queue.at("done/a.json")).unwrap(), receipt);
    let conflict = queue.json("refused/a.conflict.json");
    assert!(conflict["reasons"][0].as_str().unwrap().contains("take a new id"), "{conflict}");
    assert_eq!(conflict["request"]["forget"], json!([0, 1, 3]));
    assert!(queue.at("refused/a.conflict.rejected").is_file());
    // What is no request takes no receipt's place.
    let half = b"{\"version\": 1, \"id\": \"a\", \"forget\": [5";
    queue.put("a.json", half, 11);
    assert_eq!(queue.serve(options()).refused, 1);
    assert_eq!(std::fs::read(queue.at("done/a.json")).unwrap(), receipt);
    assert!(!queue.at("refused/a.json").exists());
    assert_eq!(std::fs::read(queue.at("refused/a.conflict.rejected")).unwrap(), half);
    // A file that was no request binds no id.
    queue.put("b.json", b"{\"version\": 1, \"id\": \"b\", \"forget\": [5", 11);
    assert_eq!(queue.serve(options()).refused, 1);
    queue.ask("b", json!([5]), 12);
    // Killed between the two: the receipt of the refusal goes all the same.
    let mut server = queue.server(options()).unwrap();
    server.on_change(Box::new(|change| match change {
        "end of refusal" => Err(Error::Interrupted { kept: "killed".into() }),
        _ => Ok(()),
    }));
    assert!(server.serve().is_err());
    drop(server);
    assert!(queue.at("done/b.json").exists() && queue.at("refused/b.json").exists());
    assert_eq!(queue.serve(options()).removed, 1);
    assert!(queue.at("done/b.json").exists() && !queue.at("refused/b.json").exists());
}

#[test]
fn what_is_no_request_is_refused_and_blocks_nothing() {
    let queue = Queue::new();
    let request =
        |id: &str, forget: &str| format!("{{\"version\": 1, \"id\": \"{id}\", \"forget\": {forget}}}");
    let long = format!(
        "{{\"version\": 1, \"id\": \"long\", \"reason\": \"{}\", \"forget\": [1]}}",
        "x".repeat(LONGEST as usize)
    );
    let cases = [
        ("empty", String::new(), "is not JSON"),
        ("half", request("half", "[1, 2]")[..30].into(), "is not JSON"),
        ("binary", "\u{0}\u{1}\u{2}".into(), "is not JSON"),
        ("keys", request("keys", "[1], \"priority\": 1"), "`priority`"),
        ("twice", request("twice", "[1], \"forget\": [2]"), "duplicate field"),
        ("future", request("future", "[1]").replace("\"version\": 1", "\"version\": 9"), "version 9"),
        ("other", request("another", "[1]"), "`another`"),
        ("none", request("none", "[]"), "empty"),
        ("beyond", request("beyond", "[7, 200]"), "sample 200"),
        ("class", request("class", "\"class:7\""), "class 7"),
        ("name", request("name", "\"s1/a.png\""), "`s1/a.png`"),
        ("spec", request("spec", "\"9-3\""), "ends before"),
        ("long", long, "the most that a request has"),
    ];
    for (id, text, _) in &cases {
        queue.put(&format!("{id}.json"), text.as_bytes(), 0);
    }
    // A list on the server is none of a request's business.
    let list = queue.tiny.at("list.txt");
    std::fs::write(&list, "1\n2\n").unwrap();
    queue.ask("list", json!(list), 0);
    queue.put("bad name.json", request("x", "[1]").as_bytes(), 0);
    // Not taken for requests.
    queue.put("c.json.part", b"{", 0);
    queue.put(".hidden.json", b"{", 0);
    std::fs::create_dir(queue.at("incoming/folder.json")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(&list, queue.at("incoming/link.json")).unwrap();
    queue.ask("good", json!([3, 4]), 1);
    let served = queue.serve(options());
    assert_eq!(served, Served { removed: 1, not_removed: 0, refused: cases.len() as u64 + 4 });
    for (id, _, word) in &cases {
        let receipt = queue.json(&format!("refused/{id}.json"));
        assert_eq!(receipt["state"], "refused", "{id}");
        let reason = receipt["reasons"][0].as_str().unwrap();
        assert!(reason.contains(word), "{id}: `{word}` is not in: {reason}");
        assert!(queue.at(&format!("refused/{id}.rejected")).is_file(), "{id}");
    }
    for id in ["list", "folder", "link"] {
        assert_eq!(queue.json(&format!("refused/{id}.json"))["state"], "refused", "{id}");
    }
    let named = queue.names("refused").into_iter().find(|name| name.starts_with("name-")).unwrap();
    assert_eq!(queue.json(&format!("refused/{named}"))["id"], "bad name.json");
    // What is no plain file stays, and is told of once.
    assert_eq!(queue.names("incoming"), [".hidden.json", "c.json.part", "folder.json", "link.json"]);
    assert_eq!(queue.serve(options()), Served::default());
    assert_eq!(std::fs::read(&list).unwrap(), b"1\n2\n");
}

#[test]
fn a_batch_begins_by_count_or_by_age() {
    let queue = Queue::new();
    let mut server = queue.server(QueueOptions { once: false, ..options() }).unwrap();
    let mut turn = |seconds: usize| {
        queue.clock.store(seconds, Ordering::Relaxed);
        server.turn().unwrap()
    };
    assert_eq!(turn(0), Turn::Idle);
    queue.ask("a", json!([0, 1]), 10);
    assert_eq!(turn(20), Turn::Idle);
    assert_eq!(turn(609), Turn::Idle);
    assert_eq!(turn(610), Turn::Removed(1));
    queue.ask("b", json!([2, 3]), 700);
    queue.ask("c", json!([4, 5]), 701);
    queue.ask("d", json!([6, 7]), 702);
    assert_eq!(turn(703), Turn::Removed(2)); // two of three
    assert_eq!(queue.names("incoming"), ["d.json"]);
    assert_eq!(turn(704), Turn::Idle);
    queue.ask("d", json!([6, 8]), 705); // replaced before its batch began
    queue.ask("e", json!("class:2"), 706);
    assert_eq!(turn(707), Turn::Removed(3));
    assert_eq!(queue.json("done/d.json")["samples"], json!([6, 8]));
    assert_eq!(turn(708), Turn::Idle);
    assert_eq!(turn(1306), Turn::Removed(4)); // a class goes alone
    let receipt = queue.json("done/e.json");
    assert_eq!(receipt["forgotten_before"], json!([2, 5, 8]));
    let report = queue.json("versions/0004/report.json");
    assert_eq!(
        (&report["options"]["forget"], &report["options"]["target"]),
        (&json!("class:2"), &json!("class"))
    );
    assert_eq!(report["options"]["seed"], 4);
}

/// Requests that give two versions and a refusal.
fn ask_several(queue: &Queue) {
    queue.ask("a", json!("0-4"), 0);
    queue.put("bad.json", b"{", 1);
    queue.ask("b", json!([5, 6]), 2);
    queue.ask("c", json!([7, 8, 0]), 3);
}

#[test]
fn a_server_that_is_killed_at_any_change_goes_on_to_the_same_bytes() {
    let whole = Queue::new();
    ask_several(&whole);
    let changes = Arc::new(AtomicUsize::new(0));
    let counted = |queue: &Queue, most: usize| -> Result<Served> {
        changes.store(0, Ordering::Relaxed);
        let count = changes.clone();
        let mut server = queue.server(QueueOptions { keep: 1, ..options() })?;
        server.on_change(Box::new(move |change| {
            // A run is kept by its own files: it is no change of a life that makes one.
            let alive = (change == "run" && most == 1) || count.fetch_add(1, Ordering::Relaxed) < most;
            if alive { Ok(()) } else { Err(Error::Interrupted { kept: "killed".into() }) }
        }));
        server.serve()
    };
    counted(&whole, usize::MAX).unwrap();
    let (all, expected) = (changes.load(Ordering::Relaxed), whole.content());
    assert!(all > 20, "{all}");
    assert_eq!(whole.names("versions"), ["0002"]);
    for at in 0..all {
        let queue = whole.other(&format!("killed-{at}"));
        ask_several(&queue);
        assert!(counted(&queue, at).is_err(), "{at} of {all}");
        for left in ["working/batch.json.part", "done/a.json.part", "current.part"] {
            std::fs::write(queue.at(left), "cut off").unwrap(); // as within a write
        }
        counted(&queue, usize::MAX).unwrap();
        ["working/batch.json.part", "done/a.json.part", "current.part"].iter().for_each(|left| {
            let _ = std::fs::remove_file(queue.at(left)); // where nothing was written over it
        });
        queue.check(&expected, &format!("killed at change {at} of {all}"));
    }
    // Killed again and again: every life makes one change.
    let queue = whole.other("lives");
    ask_several(&queue);
    let lives = (1..=2 * all).find(|_| counted(&queue, 1).is_ok());
    assert!(lives.is_some_and(|lives| lives > all / 2), "{lives:?} of {all}");
    queue.check(&expected, "a change a life");
}

#[test]
fn a_server_that_is_stopped_within_a_batch_goes_on_to_the_same_bytes() {
    let whole = Queue::new();
    ask_several(&whole);
    whole.serve(options());
    let expected = whole.content();
    let mut stops = 0;
    for at in 0.. {
        let queue = whole.other(&format!("stopped-{at}"));
        ask_several(&queue);
        let (calls, stop) = (AtomicUsize::new(0), queue.stop.clone());
        let session = queue.session().unwrap().on_progress(move |_| {
            if calls.fetch_add(1, Ordering::Relaxed) == at {
                stop.store(true, Ordering::Relaxed);
            }
        });
        let stopped = Server::open(session, &queue.folder(), options()).unwrap().serve();
        if stopped.is_ok() {
            break;
        }
        assert_eq!(stopped.err().map(|error| error.code()), Some(10));
        stops += 1;
        queue.stop.store(false, Ordering::Relaxed);
        queue.serve(options());
        queue.check(&expected, &format!("stopped at {at}"));
    }
    assert!(stops > 8, "{stops}");
}

#[test]
fn a_batch_that_fails_is_tried_one_by_one_and_the_model_stays() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1]), 0);
    queue.ask("b", json!([2]), 1);
    // So short a hold costs accuracy, which the gate is not to let pass.
    let request = ScrubOptions { gate: 0.0, ..options().request };
    let options = QueueOptions { request, ..options() };
    let mut server = queue.server(options.clone()).unwrap();
    let turns: Vec<Turn> = (0..4).map(|_| server.turn().unwrap()).collect();
    assert_eq!(turns, [Turn::Split, Turn::NotRemoved, Turn::NotRemoved, Turn::Idle]);
    assert_eq!(server.served(), Served { removed: 0, not_removed: 2, refused: 0 });
    drop(server);
    for (id, samples) in [("a", json!([0, 1])), ("b", json!([2]))] {
        let receipt = queue.json(&format!("refused/{id}.json"));
        assert_eq!((&receipt["state"], &receipt["samples"]), (&json!("not-removed"), &samples));
        assert!(receipt["version"].is_null() && receipt["batch"]["requests"] == 1, "{receipt}");
        assert!(receipt["reasons"].to_string().contains("accuracy would fall"), "{receipt}");
    }
    assert!(!queue.at("current").exists() && queue.names("versions").is_empty());
    assert!(queue.names("working").is_empty());
    let warned = queue.log.lock().unwrap().clone();
    assert!(warned.iter().any(|line| line.contains("now one by one")), "{warned:?}");
    // It has its receipt: the same request is not tried again, and another one needs another id.
    queue.ask("a", json!([0, 1]), 5);
    queue.ask("b", json!([3]), 6);
    assert_eq!(queue.serve(options.clone()), Served { removed: 0, not_removed: 0, refused: 1 });
    assert!(queue.at("refused/b.conflict.json").exists());
    // Nor does a file that is no request free the id.
    queue.put("a.json", b"{", 7);
    assert_eq!(queue.serve(options.clone()).refused, 1);
    assert_eq!(queue.json("refused/a.json")["state"], "not-removed");
    assert_eq!(queue.json("refused/a.conflict.json")["state"], "refused");
    queue.ask("a", json!([0, 1]), 8);
    assert_eq!(queue.serve(options), Served::default());
}

#[cfg(unix)]
#[test]
fn a_spool_that_lost_a_part_is_refused() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.serve(options());
    let error = || queue.server(options()).err().unwrap().to_string();
    std::fs::remove_file(queue.at("current")).unwrap();
    let found = error();
    assert!(found.contains("current: is missing") && found.contains("ln -sfn versions/0001"), "{found}");
    std::os::unix::fs::symlink("versions/0001", queue.at("current")).unwrap();
    drop(queue.server(options()).unwrap());
    std::fs::rename(queue.at("held/0001.safetensors"), queue.at("held/.away")).unwrap();
    let found = error();
    assert!(found.contains("leads to version 0001") && found.contains("held/"), "{found}");
}

#[test]
fn a_version_of_other_samples_is_not_taken_for_the_batch_s() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    let mut server = queue.server(options()).unwrap();
    server.on_change(Box::new(|change| match change {
        "current" => Err(Error::Interrupted { kept: "killed".into() }),
        _ => Ok(()),
    }));
    assert!(server.serve().is_err());
    drop(server);
    let mut journal = queue.json("working/batch.json");
    journal["requests"][0]["samples"] = json!([0, 1, 3]);
    std::fs::write(queue.at("working/batch.json"), journal.to_string()).unwrap();
    let error = queue.server(options()).unwrap().serve().unwrap_err().to_string();
    assert!(error.contains("0001") && error.contains("is of other samples"), "{error}");
    assert!(!queue.at("current").exists() && queue.names("done").is_empty());
}

#[test]
fn a_damaged_receipt_is_moved_aside_and_the_queue_goes_on() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.serve(options());
    let whole = std::fs::read(queue.at("done/a.json")).unwrap();
    std::fs::write(queue.at("done/a.json"), &whole[..whole.len() / 2]).unwrap();
    queue.ask("a", json!([0, 1, 2]), 1); // forgotten already, whatever the receipt says
    queue.ask("b", json!([3, 4]), 2);
    assert_eq!(queue.serve(options()), Served { removed: 1, not_removed: 0, refused: 1 });
    assert_eq!(std::fs::read(queue.at("done/a.json.damaged")).unwrap(), whole[..whole.len() / 2]);
    assert_eq!(queue.names("done"), ["a.json.damaged", "b.json"]);
    let receipt = queue.json("refused/a.json");
    assert!(receipt["reasons"][0].as_str().unwrap().contains("forgotten before"), "{receipt}");
    let told = queue.log.lock().unwrap().clone();
    assert!(told.iter().any(|line| line.contains("done/a.json: is not what a server writes")), "{told:?}");
}

#[test]
fn a_file_that_cannot_be_moved_holds_no_other_up() {
    let queue = Queue::new();
    queue.put("bad.json", b"{", 0);
    queue.ask("good", json!([0, 1, 2]), 1);
    let mut server = queue.server(options()).unwrap();
    server.on_change(Box::new(|change| match change {
        "set aside" => {
            let source = std::io::ErrorKind::CrossesDevices.into();
            Err(Error::Io { path: "incoming/bad.json".into(), source })
        }
        _ => Ok(()),
    }));
    let error = server.serve().unwrap_err();
    assert!(error.code() == 9 && error.to_string().contains("incoming/bad.json"), "{error}");
    assert_eq!(server.served(), Served { removed: 1, not_removed: 0, refused: 1 });
    drop(server);
    assert_eq!(queue.names("incoming"), ["bad.json"]);
    // Stopped before it began, where something waits and where nothing does.
    queue.stop.store(true, Ordering::Relaxed);
    let stopped = || queue.server(options()).unwrap().serve();
    assert_eq!(stopped().err().map(|error| error.code()), Some(10));
    std::fs::remove_file(queue.at("incoming/bad.json")).unwrap();
    assert_eq!(stopped().unwrap(), Served::default());
}

#[test]
fn requests_that_are_tried_one_by_one_give_a_version_each() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.ask("b", json!([1, 2]), 1);
    queue.ask("c", json!([2, 3]), 2);
    let options = QueueOptions { policy: Policy { count: 3, ..options().policy }, ..options() };
    let mut server = queue.server(options.clone()).unwrap();
    server.on_change(Box::new(|change| match change {
        "run" => Err(Error::Interrupted { kept: String::new() }),
        _ => Ok(()),
    }));
    assert!(server.serve().is_err());
    drop(server);
    // As it is after the batch failed.
    let mut journal = queue.json("working/batch.json");
    journal["alone"] = true.into();
    std::fs::write(queue.at("working/batch.json"), journal.to_string()).unwrap();
    assert_eq!(queue.serve(options), Served { removed: 2, not_removed: 0, refused: 1 });
    assert_eq!(
        (&queue.json("done/a.json")["version"], &queue.json("done/c.json")["version"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(queue.json("done/c.json")["forgotten_before"], json!([2]));
    assert_eq!(queue.json("refused/b.json")["forgotten_before"], json!([1, 2]));
}

#[test]
fn versions_by_lcodec_go_on_from_one_another() {
    let queue = Queue::new();
    queue.ask("a", json!("0-11"), 0);
    queue.ask("b", json!("12-23"), 1);
    let request = ScrubOptions {
        method: Some(Procedure::Lcodec),
        perturbations: Some(100),
        target_loss: Some(1.0),
        retain: Some("0-149".into()),
        gate: 1.0,
        ..ScrubOptions::DEFAULT
    };
    let policy = Policy { count: 1, ..options().policy };
    let served = queue.serve(QueueOptions { request, policy, ..options() });
    assert_eq!(served, Served { removed: 2, not_removed: 0, refused: 0 });
    let [first, second] =
        ["0001", "0002"].map(|version| queue.json(&format!("versions/{version}/report.json")));
    let n = |report: &Value| report["records"][0]["account"]["n"].clone();
    assert_eq!((n(&first), n(&second)), (json!(200), json!(188)));
    // What was forgotten is no longer among the samples that may be retained.
    assert_eq!((&first["retained"]["used"], &second["retained"]["used"]), (&json!(138), &json!(126)));
    // Nothing is held: L-CODEC has no soft labels.
    let tensors = scrubjay::data::tensors::TensorFile::open(&queue.at("held/0001.safetensors")).unwrap();
    assert_eq!(tensors.integers("indices").unwrap(), Vec::from_iter(0..12));
    assert!(tensors.f32("soft_labels").unwrap().is_empty());
}

#[test]
fn a_spool_has_one_server_and_one_model() {
    let queue = Queue::new();
    let server = queue.server(options()).unwrap();
    let error = queue.server(options()).err().unwrap();
    assert!(
        error.exit_code() == 2 && error.to_string().contains("another server works on this spool"),
        "{error}"
    );
    drop(server);
    drop(queue.server(options()).unwrap());
    let mut options = options();
    options.request.n = Some(3);
    let error = queue.server(options).err().unwrap().to_string();
    assert!(error.contains("--n 3"), "{error}"); // of the server's own options, before any request
    let model = queue.tiny.at("m.safetensors");
    let mut bytes = std::fs::read(&model).unwrap();
    let last = bytes.len() - 2;
    bytes[last] ^= 1;
    std::fs::write(&model, bytes).unwrap();
    let error = queue.server(self::options()).err().unwrap().to_string();
    assert!(error.contains("spool.json") && error.contains("another --model"), "{error}");
}

#[test]
fn what_the_file_system_refuses_is_told_once_and_tried_again() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.clock.store(9999, Ordering::Relaxed);
    let mut server = queue.server(QueueOptions { once: false, ..options() }).unwrap();
    let (fails, stop, metrics) = (AtomicUsize::new(0), queue.stop.clone(), server.metrics());
    let seen = metrics.clone();
    server.on_change(Box::new(move |change| {
        if change == "held" && fails.fetch_add(1, Ordering::Relaxed) < 3 {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(Error::Io { path: "spool/held".into(), source });
        }
        if change == "end of batch" {
            assert!(seen.trouble().is_some_and(|text| text.contains("spool/held")));
            stop.store(true, Ordering::Relaxed); // as SIGTERM does
        }
        Ok(())
    }));
    assert_eq!(server.serve().unwrap(), Served { removed: 1, not_removed: 0, refused: 0 });
    assert_eq!(metrics.trouble(), None);
    let told: Vec<String> =
        queue.log.lock().unwrap().iter().filter(|line| line.contains("spool/held")).cloned().collect();
    assert_eq!(told.len(), 1, "{told:?}");
    // With --once it is an error at once.
    queue.stop.store(false, Ordering::Relaxed);
    queue.ask("b", json!([3, 4]), 1);
    let mut server = {
        drop(server);
        queue.server(options()).unwrap()
    };
    server.on_change(Box::new(|_| {
        Err(Error::Io { path: "spool".into(), source: std::io::ErrorKind::ReadOnlyFilesystem.into() })
    }));
    assert_eq!(server.serve().err().map(|error| error.code()), Some(9));
}

#[test]
fn metrics_tell_of_batches() {
    let queue = Queue::new();
    queue.ask("a", json!([0, 1, 2]), 0);
    queue.put("bad.json", b"{", 1);
    let (metrics, local) = (Arc::new(Metrics::starting()), "127.0.0.1:0".parse().unwrap());
    let responder = Responder::start(local, false, metrics.clone(), queue.at("incoming")).unwrap();
    let page = || {
        let mut stream = TcpStream::connect(responder.address()).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    let has = |page: &str, lines: &[&str]| {
        lines
            .iter()
            .for_each(|line| assert!(page.lines().any(|found| found == *line), "{line} is not in {page}"));
    };
    assert!(page().starts_with("HTTP/1.1 503 ") && page().ends_with("starting\n"), "{}", page());
    let mut server = queue.server(options()).unwrap().with_metrics(metrics);
    has(&page(), &["scrubjay_requests{state=\"waiting\"} 2", "scrubjay_version 0"]);
    server.serve().unwrap();
    queue.ask("b", json!([9]), 2);
    let page = page();
    has(
        &page,
        &[
            "scrubjay_requests{state=\"waiting\"} 1",
            "scrubjay_requests{state=\"working\"} 0",
            "scrubjay_requests_total{state=\"removed\"} 1",
            "scrubjay_requests_total{state=\"refused\"} 1",
            "scrubjay_batches_total{state=\"removed\"} 1",
            "scrubjay_batch_seconds_count 1",
            "scrubjay_samples_forgotten 3",
            "scrubjay_version 1",
            "scrubjay_errors_total 0",
        ],
    );
    for series in ["{set=\"retained\",when=\"before\"}", "{set=\"validation\",when=\"after\"}"] {
        assert!(page.contains(&format!("\nscrubjay_accuracy{series} 0.")), "{series}: {page}");
    }
    // Every family is in the manual.
    let manual = include_str!("../docs/SERVE.md");
    for family in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        assert!(manual.contains(&format!("`{family}")), "{family}");
    }
}

/// The program on a queue's spool.
fn program(queue: &Queue, more: &str) -> Command {
    let at = |name: &str| queue.tiny.at(name).to_string_lossy().into_owned();
    let mut command = Command::new(env!("CARGO_BIN_EXE_scrubjay"));
    command.args(["serve", "--model", &at("m.safetensors"), "--data", &at("train.safetensors")]);
    command.args(["--val", &at("train.safetensors"), "--spool", &at("spool"), "--device", "cpu"]);
    command.args(["--gate", "100", "--proxy-epochs", "1", "--hold-epochs", "1"]);
    command.args(more.split_whitespace()).env("CUDA_VISIBLE_DEVICES", "");
    command
}

#[test]
fn the_command_works_off_a_spool_and_its_exit_code_tells() {
    let queue = Queue::new();
    queue.ask("a", json!("0-4"), 0);
    let done = program(&queue, "--once").output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert_eq!(done.status.code(), Some(0), "{err}");
    assert!(out.contains("1 removed, 0 not removed, 0 refused"), "{out}");
    assert!(
        err.contains("version 0001: begun; requests: 1, samples: 5")
            && err.contains("version 0001: is current"),
        "{err}"
    );
    queue.put("bad.json", b"{", 1);
    let done = program(&queue, "--once").output().unwrap();
    let err = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.code() == Some(3) && err.contains("warning: request bad: refused: is not JSON"),
        "{err}"
    );
    for (more, word) in [
        ("--once --metrics 0.0.0.0:0", "--metrics-anywhere"),
        ("--once --batch-count 0", "--batch-count"),
        ("--once --keep 0", "--keep"),
        ("--once --batch-age 10", "10m"),
        ("--once --poll 0s", "--poll is 0.1s to 1d"),
        ("--once --poll 99999999d", "--poll is 0.1s to 1d"),
        ("--once --method lcodec --hold-epochs 3", "--hold-epochs"),
    ] {
        let done = program(&queue, more).output().unwrap();
        let err = String::from_utf8_lossy(&done.stderr);
        assert!(
            done.status.code() == Some(2) && err.contains(word) && !err.contains("panicked"),
            "{more}: {err}"
        );
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_command_and_leaves_nothing_half_done() {
    let queue = Queue::new();
    queue.ask("a", json!("0-4"), 0);
    let mut child = program(&queue, "--batch-age 0s --poll 0.1s")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while !queue.at("done/a.json").exists() {
        assert!(Instant::now() < end && child.try_wait().unwrap().is_none(), "no receipt");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(queue.names("working").is_empty() && queue.names("incoming").is_empty());
    assert_eq!(std::fs::read_link(queue.at("current")).unwrap(), Path::new("versions/0001"));
}

#[test]
fn the_examples_of_the_manual_are_the_program_s() {
    let manual = include_str!("../docs/SERVE.md");
    let help = crate::tiny::scrubjay(&["serve", "--help-all"]).out;
    let known =
        |option: &str| help.split_whitespace().any(|word| word.trim_end_matches([',', ']', '.']) == option);
    // Options of `scrubjay serve`, in commands, units and manifests; systemd's and kubectl's have no dashes.
    let options: Vec<&str> = manual
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.starts_with("--") && word.len() > 3)
        .collect();
    assert!(options.len() > 30, "{options:?}");
    for option in options {
        assert!(known(option), "{option} is no option of serve");
    }
    // The first block, pasted into a shell where its files are.
    let dir = tempfile::tempdir().unwrap();
    crate::hold::files(dir.path()).unwrap();
    let block =
        manual.lines().skip_while(|line| !line.starts_with("    ")).take_while(|line| !line.is_empty());
    let script: String = block.map(|line| format!("{}\n", line.trim())).collect();
    let folder = Path::new(env!("CARGO_BIN_EXE_scrubjay")).parent().unwrap().to_path_buf();
    let path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
    let path = std::env::join_paths(std::iter::once(folder).chain(path)).unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-ec", &script]).current_dir(&dir).env("PATH", path).env("CUDA_VISIBLE_DEVICES", "");
    let done = shell.output().unwrap();
    assert!(done.status.success(), "{script}{}", String::from_utf8_lossy(&done.stderr));
    let printed = String::from_utf8(done.stdout).unwrap();
    let receipt: Value = serde_json::from_str(&printed[printed.find('{').unwrap()..]).unwrap();
    assert_eq!((&receipt["state"], &receipt["version"]), (&json!("removed"), &json!(1)));
    for key in receipt.as_object().unwrap().keys() {
        assert!(manual.contains(&format!("`{key}`")), "{key}");
    }
    for key in receipt["batch"].as_object().unwrap().keys() {
        assert!(manual.contains(&format!("`batch.{key}`")), "batch.{key}");
    }
    // The request with all keys.
    let block = manual.split("```json\n").nth(1).unwrap().split("```").next().unwrap();
    scrubjay::queue::Submission::parse("2026-0001", block.as_bytes()).unwrap();
}
