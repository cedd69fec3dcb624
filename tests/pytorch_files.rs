//! PyTorch's own files are read as PyTorch reads them, written with only the changed values different, and refused by
//! name where they are damaged, hold code, or would have to be guessed at. The files and the values that PyTorch reads
//! in them are `scripts/torch-files.py`'s.

use std::path::{Path, PathBuf};

use scrubjay::checkpoint::{Checkpoint, Patched};
use scrubjay::data::tensors::TensorFile;
use scrubjay::net::Network;
use scrubjay::zoo;

/// Every file of one model, with the key of its weights where it has several.
const FILES: [(&str, Option<&str>); 14] = [
    ("zip.pth", None),
    ("older.pth", None),
    ("protocol4.pt", None),
    ("float64.bin", None),
    ("float16.bin", None),
    ("bfloat16.bin", None),
    ("parameters.pt", None),
    ("training.pth.tar", None),
    ("training-older.pth.tar", None),
    ("two.pth", Some("model")),
    ("views.pth", None),
    ("views-older.pth", None),
    ("tied.pth", None),
    ("zip.pth", Some(".")),
];

fn stored(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/torch").join(name)
}

fn open(path: &Path, weights: Option<&str>) -> scrubjay::Result<Checkpoint> {
    let weights: Vec<String> = weights.iter().map(ToString::to_string).collect();
    Checkpoint::open_with(path, &[], &weights)
}

fn network(path: &Path, weights: Option<&str>) -> Network {
    zoo::load(&open(path, weights).unwrap(), None, None).unwrap().network
}

/// The values of a parameter in PyTorch's order.
fn values(net: &Network, name: &str) -> Vec<f64> {
    let param = net.params.iter().find(|param| param.name == name).unwrap();
    param.order.to_stored(&param.value).into_iter().map(f64::from).collect()
}

fn refused(path: &Path, weights: Option<&str>, words: &[&str]) {
    let loaded = open(path, weights).and_then(|checkpoint| zoo::load(&checkpoint, None, None).map(|_| ()));
    let error = loaded.err().unwrap_or_else(|| panic!("{} was accepted", path.display())).to_string();
    let name = path.file_name().unwrap().to_string_lossy();
    for word in words.iter().chain([&name.as_ref()]) {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// Reads a model, changes values by name and place, and writes it to a new folder.
fn patch(
    path: &Path,
    weights: Option<&str>,
    out: &Path,
    changes: &[(&str, usize, f32)],
) -> scrubjay::Result<Patched> {
    let checkpoint = open(path, weights)?;
    let before = zoo::load(&checkpoint, None, None)?.network;
    let mut after = before.clone();
    for &(name, at, value) in changes {
        let param = after.params.iter_mut().find(|param| param.name == name).unwrap();
        let kept = param.order.kept(at);
        param.value[kept] = value;
    }
    std::fs::create_dir_all(out).unwrap();
    checkpoint.write_patched(&before, &after, out)
}

#[test]
fn every_form_of_file_has_the_values_that_pytorch_reads_in_it() {
    let expected = TensorFile::open(&stored("expected.safetensors")).unwrap();
    for (name, weights) in FILES {
        let net = network(&stored(name), weights);
        let mut read = 0;
        for stored in expected.names() {
            let Some(tensor) = stored.strip_prefix(&format!("{name}/")) else { continue };
            let tensor = tensor.trim_start_matches("module.");
            assert_eq!(values(&net, tensor), expected.f64(&stored).unwrap(), "{stored}");
            read += 1;
        }
        assert_eq!((read, net.params.len()), (4, 4), "{name}");
    }
    let shadow = network(&stored("two.pth"), Some("ema/shadow"));
    let model = values(&network(&stored("two.pth"), Some("model")), "fc1.bias");
    assert_eq!(values(&shadow, "fc1.bias"), model.iter().map(|v| v + 1.0).collect::<Vec<_>>());
}

/// CRC-32 by its definition, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    let divide = |sum: u32| (0..8).fold(sum, |sum, _| sum >> 1 ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 });
    !bytes.iter().fold(!0, |sum, &byte| divide(sum ^ u32::from(byte)))
}

/// The checksums in an archive's list that are not those of their entries, and how many are right.
fn checksums(bytes: &[u8]) -> (Vec<String>, usize) {
    let u16_at = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
    let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().unwrap());
    let (mut wrong, mut right) = (vec![], 0);
    for at in (0..bytes.len() - 46).filter(|&at| bytes[at..].starts_with(b"PK\x01\x02")) {
        let name = String::from_utf8_lossy(&bytes[at + 46..at + 46 + u16_at(at + 28)]).into_owned();
        let (header, len) = (u32_at(at + 42) as usize, u32_at(at + 20) as usize);
        let start = header + 30 + u16_at(header + 26) + u16_at(header + 28);
        let sum = crc(&bytes[start..start + len]);
        assert_eq!(&bytes[start + len..start + len + 4], b"PK\x07\x08");
        match (sum == u32_at(at + 16), sum == u32_at(start + len + 4)) {
            (true, true) => right += 1,
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    (wrong, right)
}

#[test]
fn a_changed_model_is_the_same_file_but_for_these_values_and_their_checksums() {
    assert_eq!(crc(b"123456789"), 0xcbf4_3926);
    let changes = [("fc1.weight", 7, 1.75), ("fc1.weight", 8, 2.5), ("fc2.bias", 1, -0.5)];
    for (name, weights) in FILES.into_iter().filter(|(name, _)| *name != "tied.pth") {
        let dir = tempfile::tempdir().unwrap();
        let patched = patch(&stored(name), weights, dir.path(), &changes).unwrap();
        assert_eq!((patched.changed, patched.vanished), (3, 0), "{name}");
        let (old, new) =
            (std::fs::read(stored(name)).unwrap(), std::fs::read(dir.path().join(name)).unwrap());
        assert_eq!(old.len(), new.len(), "{name}");
        let differ = old.iter().zip(&new).filter(|(a, b)| a != b).count();
        let is_zip = new.starts_with(b"PK");
        // Three values of at most eight bytes; the sums of the two entries that they are in, of four bytes, twice.
        assert!(differ > 2 && differ <= 3 * 8 + if is_zip { 16 } else { 0 }, "{name}: {differ}");
        if is_zip {
            let (wrong, right) = checksums(&new);
            assert!(wrong.is_empty() && right >= 6, "{name}: {wrong:?}");
        }
        let mut expected = network(&stored(name), weights);
        for (tensor, at, value) in changes {
            let param = expected.params.iter_mut().find(|param| param.name == tensor).unwrap();
            let kept = param.order.kept(at);
            param.value[kept] = value;
        }
        assert!(network(&dir.path().join(name), weights) == expected, "{name}");
    }
}

#[test]
fn a_value_that_two_tensors_share_changes_in_both_or_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let both = [("fc1.bias", 2, 9.0), ("fc2.bias", 1, 9.0)];
    let patched = patch(&stored("tied.pth"), None, dir.path(), &both).unwrap();
    assert_eq!(patched.changed, 2);
    let net = network(&dir.path().join("tied.pth"), None);
    assert_eq!((values(&net, "fc1.bias")[2], values(&net, "fc2.bias")[1]), (9.0, 9.0));
    // The first value of fc1.bias is its own.
    patch(&stored("tied.pth"), None, dir.path(), &[("fc1.bias", 0, 9.0)]).unwrap();
    for one in [("fc1.bias", 2, 9.0), ("fc2.bias", 1, 9.0)] {
        let error = patch(&stored("tied.pth"), None, dir.path(), &[one]).unwrap_err().to_string();
        assert!(
            error.contains(one.0) && error.contains("shares its memory") && error.contains("clone()"),
            "{error}"
        );
    }
}

#[test]
fn a_choice_that_would_be_a_guess_is_asked_for_and_code_is_never_run() {
    refused(&stored("two.pth"), None, &["model, ema/shadow", "--weights KEY"]);
    refused(&stored("two.pth"), Some("net"), &["no weights under `net`", "model, ema/shadow"]);
    refused(&stored("expected.safetensors"), Some("model"), &["no PyTorch file", "--weights ."]);
    let several = ["absent", "ema/shadow", "."].map(String::from);
    let key = |name: &str| {
        let checkpoint = Checkpoint::open_with(&stored(name), &[], &several).unwrap();
        checkpoint.weights().map(String::from)
    };
    assert_eq!(key("two.pth").as_deref(), Some("ema/shadow"));
    assert_eq!(key("zip.pth"), None);
    assert_eq!(key("expected.safetensors"), None);
    let how = ["import torch", "weights_only=False", "torch.save(model.state_dict()"];
    for (name, word) in [
        ("module.pth", "__main__.Unknown"),
        ("module-older.pth", "Unknown"),
        ("module-inside.pth", "[\"model\"]"),
    ] {
        refused(&stored(name), None, &[how[0], how[1], how[2], word]);
    }
    refused(&stored("script.pt"), None, &["TorchScript", "state_dict()"]);
    refused(&stored("compressed.pth"), None, &["entry `zip/", "is compressed"]);
}

#[test]
fn facts_name_the_weights_that_were_taken() {
    let read = zoo::load(&open(&stored("training.pth.tar"), None).unwrap(), None, None).unwrap();
    let facts = read.facts.tensors.join("\n");
    assert!(facts.contains("`state_dict`") && facts.contains("`module.`"), "{facts}");
}

#[test]
fn what_lies_beside_the_weights_is_told() {
    let notes = |name: &str, weights| open(&stored(name), weights).unwrap().notes().join("\n");
    for name in ["training.pth.tar", "training-older.pth.tar"] {
        // The optimizer's moments and the best loss are tensors of floats, the state of a random generator is of bytes.
        assert!(notes(name, None).contains("(optimizer, best_loss)"), "{}", notes(name, None));
    }
    assert!(notes("two.pth", Some("model")).contains("(ema)"));
    assert!(notes("two.pth", Some("ema/shadow")).contains("(model)"));
    for name in ["zip.pth", "older.pth", "tied.pth"] {
        assert_eq!(notes(name, None), "", "{name}");
    }
}

#[test]
fn shards_of_pytorch_stay_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("model"), dir.path().join("out"));
    std::fs::create_dir(&model).unwrap();
    let (one, two) = ("pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin");
    std::fs::copy(stored("shard1.bin"), model.join(one)).unwrap();
    std::fs::copy(stored("shard2.bin"), model.join(two)).unwrap();
    let index = format!(
        r#"{{"metadata":{{}},"weight_map":{{"fc1.weight":"{one}","fc1.bias":"{one}","fc2.weight":"{two}","fc2.bias":"{two}"}}}}"#
    );
    std::fs::write(model.join("pytorch_model.bin.index.json"), &index).unwrap();
    assert!(network(&model, None) == network(&stored("zip.pth"), None));
    let patched = patch(&model, None, &out, &[("fc2.weight", 4, 6.0)]).unwrap();
    assert_eq!((patched.changed, patched.files), (1, vec![out.join(one), out.join(two)]));
    let read = |folder: &Path, name: &str| std::fs::read(folder.join(name)).unwrap();
    assert!(read(&model, one) == read(&out, one) && read(&model, two) != read(&out, two));
    assert_eq!(read(&out, "pytorch_model.bin.index.json"), index.as_bytes());
    std::fs::write(model.join("pytorch_model.bin.index.json"), r#"{"weight_map":{"a":"../zip.pth"}}"#)
        .unwrap();
    refused_in(&model, "no file beside it");
}

fn refused_in(folder: &Path, word: &str) {
    let error = open(folder, None).err().unwrap().to_string();
    assert!(error.contains(word), "{error}");
}

/// A file of these bytes, and why it is refused.
fn bytes_refused(bytes: &[u8], words: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hostile.pth");
    std::fs::write(&path, bytes).unwrap();
    refused(&path, None, words);
}

#[test]
fn files_that_end_too_early_are_refused_at_every_length_and_none_panics() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("short.pth");
    for name in ["zip.pth", "older.pth"] {
        let whole = std::fs::read(stored(name)).unwrap();
        for len in (0..whole.len()).step_by(7).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..len]).unwrap();
            let read =
                open(&path, None).and_then(|checkpoint| zoo::load(&checkpoint, None, None).map(|_| ()));
            assert!(read.is_err(), "{name} of {len} bytes was accepted");
        }
    }
    let whole = std::fs::read(stored("older.pth")).unwrap();
    bytes_refused(&whole[..whole.len() - 3], &["truncated"]);
    let whole = std::fs::read(stored("zip.pth")).unwrap();
    bytes_refused(&whole[..whole.len() - 30], &["zip archive", "truncated"]);
}

#[test]
fn changed_bytes_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.pth");
    for name in ["zip.pth", "older.pth", "training.pth.tar"] {
        let whole = std::fs::read(stored(name)).unwrap();
        for at in (0..whole.len()).step_by(whole.len() / 200) {
            for value in [0xff, whole[at] ^ 1] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                std::fs::write(&path, &bytes).unwrap();
                let Ok(checkpoint) = open(&path, None) else { continue };
                let _ = zoo::load(&checkpoint, None, None); // may be right: a changed value, or a date
            }
        }
    }
}

#[test]
fn what_is_no_model_is_named() {
    bytes_refused(
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n",
        &["Git LFS", "git lfs pull"],
    );
    bytes_refused(b"<!DOCTYPE html><html><body>Sign in</body></html>", &["HTML page"]);
    bytes_refused(b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.", &["Python pickle"]);
    bytes_refused(b"PK\x03\x04", &["zip archive"]);
    bytes_refused(b"", &["0 bytes"]);
    bytes_refused(b"hello, this is no model at all", &["safetensors"]);
}

/// A file of the older form around a pickle.
fn older(pickle: &[u8]) -> Vec<u8> {
    let whole = std::fs::read(stored("older.pth")).unwrap();
    // The magic number, the protocol, and the machine's sizes are pickles before the one that matters.
    let mut ends = whole.iter().enumerate().filter(|(_, byte)| **byte == b'.').map(|(at, _)| at + 1);
    let (_, _, sizes) = (ends.next(), ends.next(), ends.next().unwrap());
    [&whole[..sizes], pickle, b"\x80\x02]."].concat()
}

#[test]
fn hostile_pickles_are_refused_in_little_time_and_memory() {
    // A list that contains itself.
    bytes_refused(&older(b"\x80\x02]q\x00h\x00a."), &["no dictionary of tensors"]);
    // A dictionary that is its own value.
    bytes_refused(&older(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."), &["no dictionary of tensors"]);
    // Text of 4 GiB that is not there; bytes of 2^60.
    bytes_refused(&older(b"\x80\x02X\xff\xff\xff\xffabc."), &["too early"]);
    bytes_refused(&older(b"\x80\x04\x8e\x00\x00\x00\x00\x00\x00\x00\x10abc."), &["too early"]);
    // os.system is a name, and what it would be called with is dropped.
    let call = older(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.");
    bytes_refused(&call, &["os.system"]);
    // An empty stack, a mark that is not there, an instruction and a protocol that are unknown.
    for (pickle, word) in [
        (&b"\x80\x020."[..], "empty stack"),
        (b"\x80\x02t.", "no mark"),
        (b"\x80\x02\xfe.", "unknown instruction 0xfe"),
        (b"\x80\x09N.", "protocol 9"),
        (b"\x80\x02h\x07.", "reference to nothing"),
        (b"\x80\x02K\x01Q.", "storage"),
    ] {
        bytes_refused(&older(pickle), &[word]);
    }
    // Every list holds the one before twice: 2^40 items for who would follow them.
    let mut doubled = b"\x80\x02]q\x00".to_vec();
    for slot in 0..40u8 {
        doubled.extend([b'h', slot, b'h', slot, 0x86, b'q', slot + 1]);
    }
    doubled.push(b'.');
    bytes_refused(&older(&doubled), &["no dictionary of tensors"]);
}

/// A file of the older form with one tensor `w` of two stored floats, and these offset, shape and stride.
fn tensor(offset: &[u8], shape: &[u8], stride: &[u8]) -> Vec<u8> {
    let mut pickle =
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\n\
                       FloatStorage\nX\x01\x00\x00\x007X\x03\x00\x00\x00cpuK\x02NtQ"
            .to_vec();
    pickle.extend([offset, shape, stride, b"\x89}tRs."].concat());
    let mut file = older(&pickle);
    file.truncate(file.len() - b"\x80\x02].".len());
    file.extend(b"\x80\x02]X\x01\x00\x00\x007a.\x02\x00\x00\x00\x00\x00\x00\x00");
    file.extend([1f32, 2.0].iter().flat_map(|v| v.to_le_bytes()));
    file
}

#[test]
fn a_tensor_never_reaches_beyond_its_storage() {
    let huge = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f\x85";
    for (offset, shape, stride) in [
        (&b"K\x00"[..], &b"K\x03\x85"[..], &b"K\x01\x85"[..]),
        (b"K\x01", b"K\x02\x85", b"K\x01\x85"),
        (b"K\x00", b"K\x02\x85", b"K\x02\x85"),
        (b"K\x00", huge, b"K\x01\x85"),
        (b"K\x00", b"K\x02\x85", huge),
        (b"K\x00", huge, b"K\x00\x85"),
        (b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f", b"K\x02\x85", b"K\x01\x85"),
    ] {
        bytes_refused(&tensor(offset, shape, stride), &["tensor `w`", "beyond its storage of 2 elements"]);
    }
    bytes_refused(&tensor(b"J\xff\xff\xff\xff", b"K\x02\x85", b"K\x01\x85"), &["has not its form"]);
    bytes_refused(&tensor(b"K\x00", b"K\x02\x85", b"K\x01K\x01\x86"), &["has not its form"]);
    // And one that stays within it is read.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("good.pth");
    std::fs::write(&path, tensor(b"K\x00", b"K\x01K\x02\x86", b"K\x02K\x01\x86")).unwrap();
    assert_eq!(open(&path, None).unwrap().shape("w"), Some(&[1, 2][..]));
}
