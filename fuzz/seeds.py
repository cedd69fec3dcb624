#!/usr/bin/env python3
"""Writes the first files of tests/corpus: small ones of tests/data, and hostile ones by hand. Fuzzing adds the others."""

import gzip, hashlib, io, json, pathlib, pickle, struct, tarfile, zipfile, zlib

TESTS = pathlib.Path(__file__).resolve().parent.parent / "tests"
DATA = TESTS / "data"
NETS = ["small_cnn", "bert_tiny", "swin_timm", "mixer_timm", "preact_bottleneck_cifar", "vit_layer_scale_tiny",
        "mobilenet_v3_small_tiny", "vgg_dropout"]  # as in src/formats.rs


def put(format, name, content):
    folder = TESTS / "corpus" / format
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def copy(format, pattern, first=b"", most=6000):
    for path in sorted(DATA.glob(pattern)):
        if path.is_file() and path.stat().st_size <= most:
            put(format, path.name, first + path.read_bytes())


def tensors(header, data=b"", pad=0):
    text = json.dumps(header).encode() + b" " * pad
    return struct.pack("<Q", len(text)) + text + data


def tensor(dtype, shape, start, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def mlp(metadata=None):
    header = {"__metadata__": metadata} if metadata else {}
    header |= {"fc1.weight": tensor("F32", [2, 3], 0, 24), "fc1.bias": tensor("F32", [2], 24, 32),
               "fc2.weight": tensor("F16", [2, 2], 32, 40), "fc2.bias": tensor("BF16", [2], 40, 44)}
    return tensors(header, bytes(range(24)) + bytes(20))


# Models.
put("safetensors", "mlp", mlp({"format": "pt"}))
put("safetensors", "images", tensors({"x": tensor("U8", [2, 1, 2, 2], 0, 8), "y": tensor("I64", [2], 8, 24)}, bytes(8) + bytes(16)))
put("safetensors", "table", tensors({"X": tensor("F64", [2, 2], 0, 32), "Y": tensor("F32", [2], 32, 40)}, bytes(40)))
put("safetensors", "texts", tensors({"input_ids": tensor("I64", [1, 2], 0, 16), "attention_mask": tensor("U8", [1, 2], 16, 18),
                                     "y": tensor("U8", [1], 18, 19)}, bytes(19)))
put("safetensors", "overlap", tensors({"a": tensor("F32", [2], 0, 8), "b": tensor("F32", [2], 4, 12)}, bytes(12)))
put("safetensors", "large", tensors({"a": tensor("F32", [1 << 31, 1 << 31, 4], 0, 8)}, bytes(8)))
put("safetensors", "no-sides", tensors({"x": tensor("F32", [0, 1 << 40], 0, 0), "y": tensor("I64", [0], 0, 0)}))
put("safetensors", "lfs", "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 1\n")
put("safetensors", "html", "<!DOCTYPE html><html><body>404</body></html>")
put("safetensors", "control", tensors({"\x1b[31m\r\n": tensor("I8", [1], 0, 1)}, b"\0"))
listed = {"metadata": {"total_size": 9}, "weight_map": {"fc.weight": "one.safetensors", "a": "one.safetensors"}}
put("index", "safetensors", b"\0" + json.dumps(listed).encode())
put("index", "bin", b"\1" + json.dumps({"weight_map": {"a": "one.bin", "b": "two.bin"}}).encode())
for i, name in enumerate(["../net0/model.safetensors", "/etc/passwd", "..", "", ".", "a\\b", "absent", "a\u0000b"]):
    put("index", f"outside-{i}", b"\0" + json.dumps({"weight_map": {"a": name}}).encode())
copy("torch", "torch/*.p*t*", most=3000)
copy("torch", "torch/*.bin", most=3000)
for name in ["older.pth"]:
    put("torch", "older-cut", (DATA / "torch" / name).read_bytes()[:300])
copy("onnx", "onnx/*.onnx", most=1000)
for path in DATA.glob("torch/*.p*t*"):
    if zipfile.is_zipfile(path):
        archive = zipfile.ZipFile(path)
        for entry in archive.namelist():
            if entry.endswith("data.pkl"):
                put("pickle", path.stem, archive.read(entry))
for name in ["data_batch_1", "data_batch_2"]:
    batch = (DATA / "sets/ten/cifar-10-batches-py" / name).read_bytes()
    put("pickle", name, batch)
put("pickle", "itself", b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.")
put("pickle", "long-text", b"\x80\x02X\xff\xff\xff\x7fabc.")
put("pickle", "objects", pickle.dumps({"a": [1, -2.5, (None, True), {3}], b"b": b"c", "d": 1 << 70}, 4))
put("pickle", "protocol-0", pickle.dumps({"a": [1, 2.5, ("x", None)]}, 0))
# A long text that becomes the name of a type, or bytes, again and again.
many = b"\x80\x02X" + struct.pack("<I", 20000) + b"a" * 20000 + b"q\x00"
put("pickle", "types", many + b"cnumpy\ndtype\nq\x01(" + b"h\x01h\x00\x85R" * 4000 + b"t.")
put("pickle", "bytes", many + b"c_codecs\nencode\nq\x01(" + b"h\x01h\x00\x85R" * 4000 + b"t.")
for i, net in enumerate(NETS):
    config = json.loads((DATA / f"nets/{net}.json").read_text()).get("config") or {}
    put("config", net, bytes([i]) + json.dumps(config).encode())
configs = json.loads((DATA / "pictures/configs.json").read_text())
for name, config in configs.items():
    if "preprocessor" in config:
        put("preprocessor", name, json.dumps(config["preprocessor"]))
    elif "config" in config:
        put("config", "timm-" + name, b"\0" + json.dumps(config["config"]).encode())
put("preprocessor", "huge", json.dumps({"size": {"height": 1 << 30, "width": 1 << 30}, "image_mean": [0.5] * 3, "image_std": [0] * 3}))
put("preprocessor", "crop", json.dumps({"size": {"shortest_edge": 9}, "crop_size": {"height": 1 << 40, "width": 1}, "do_center_crop": True}))
nodes = [{"op": "conv", "name": "a", "inputs": ["image"], "weight": "conv1.weight", "bias": "conv1.bias", "stride": 2, "padding": [1, 1],
          "further": [0, 1], "dilation": 2, "groups": 1},
         {"op": "batch_norm", "name": "b", "inputs": ["a"], "weight": "b.w", "bias": "b.b", "mean": "b.m", "variance": "b.v", "eps": 1e-5},
         {"op": "activation", "name": "c", "inputs": ["b"], "function": "relu"},
         {"op": "max_pool", "name": "d", "inputs": ["c"], "size": 2, "stride": 2, "padding": 0},
         {"op": "global_pool", "name": "e", "inputs": ["d"]},
         {"op": "linear", "name": "f", "inputs": ["e"], "weight": "fc.weight", "bias": "fc.bias"}]
put("graph", "nodes", b"\0" + json.dumps({"input": [3, 8, 8], "nodes": nodes}).encode())
for op, more in [("adaptive_pool", {"height": 1 << 40, "width": 1 << 40}), ("image", {"height": 0, "width": 0}), ("shortcut", {"stride": 0, "channels": 1 << 60}),
                 ("average_pool", {"size": 0}), ("bands", {"image": [2, 2], "height": 0, "shape": [2, 2, 1]}), ("token", {"index": 1 << 60}),
                 ("max_pool", {"size": 1 << 62, "stride": 1, "padding": 1 << 63}), ("attention", {"heads": 0}), ("scale", {"factor": 1e39}),
                 ("tokens_from", {"first": 9}), ("concat", {}), ("add", {}), ("gate", {}), ("flatten", {}), ("tokens", {})]:
    node = {"op": op, "name": "a", "inputs": ["image"] * (2 if op in ("add", "gate", "concat") else 1)} | more
    put("graph", op, b"\0" + json.dumps({"input_size": [3, 8, 8], "nodes": [node]}).encode())

# Arrays and images.
def npy(descr, shape, data, order="False", version=1):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + data

put("npy", "f8", npy("'<f8'", "(2, 2)", struct.pack("<4d", 1, 2, 3, 4)))
put("npy", "big", npy("'>i2'", "(3,)", bytes(6), version=2))
put("npy", "fortran", npy("'|u1'", "(2, 3)", bytes(range(6)), "True", 3))
put("npy", "fields", npy("[('a', '<f4'), ('b', '<i8')]", "(2,)", bytes(24)))
put("npy", "huge", npy("'<f8'", f"({1 << 62}, 4)", bytes(8)))
put("npy", "none", npy("'<f8'", f"(0, {1 << 62})", b""))
copy("npz", "sets/*.npz")
def archive(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as zipped:
        for name, content in members:
            zipped.writestr(name, content)
    return out.getvalue()
put("npz", "columns", archive([("a.npy", npy("'<f8'", "(2,)", bytes(16))), ("b.npy", npy("'<i4'", "(2,)", bytes(8)))]))
put("npz", "images", archive([("x_train.npy", npy("'|u1'", "(2, 2, 2)", bytes(8))), ("y_train.npy", npy("'|u1'", "(2,)", bytes(2)))], zipfile.ZIP_STORED))
put("npz", "bomb", archive([("X.npy", npy("'|u1'", f"({70 << 20}, 1)", bytes(70 << 20)))]))
# Every entry of the list is the same bomb.
one = archive([("X.npy", bytes(4 << 20))])
at, end = one.rindex(b"PK\x01\x02"), one.rindex(b"PK\x05\x06")
put("npz", "bombs", one[:at] + one[at:end] * 100 + one[end:end + 8] + struct.pack("<HHII", 100, 100, 100 * (end - at), at) + b"\0\0")
def idx(sides, data, kind=8):
    return bytes([0, 0, kind, len(sides)]) + b"".join(struct.pack(">I", side) for side in sides) + data
def both(images, labels):
    return struct.pack("<H", len(images)) + images + labels
put("idx", "images", both(idx([2, 2, 2], bytes(range(8))), idx([2], b"\1\2")))
put("idx", "packed", both(gzip.compress(idx([2, 1, 2], bytes(4)), mtime=0), gzip.compress(idx([2], b"\1\2"), mtime=0)))
put("idx", "wide", both(idx([1, 1, 2], bytes(8), 12), idx([1], b"\0\1", 11)))
put("idx", "huge", both(idx([0xffffffff] * 3, b""), idx([0xffffffff], b"")))
put("cifar", "ten", bytes([3]) + bytes(3072))
put("cifar", "hundred", gzip.compress((bytes([3, 7]) + bytes(3072)) * 2, mtime=0))
put("stl", "packed", bytes([2]) + b"\1\2" + gzip.compress(bytes(2 * 27648), mtime=0))
copy("mat", "sets/svhn/*.mat")
bomb = zlib.compress(struct.pack("<II", 14, 70 << 20) + bytes(70 << 20))
put("mat", "bomb", (DATA / "sets/svhn/train_32x32.mat").read_bytes()[:128] + struct.pack("<II", 15, len(bomb)) + bomb)
copy("picture", "pictures/*.*", most=900)
for path in (TESTS / "corpus/picture").glob("*.json"):
    path.unlink()
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
for name, side in [("huge", 1 << 16), ("larger", (1 << 31) - 1)]:
    put("picture", name + ".png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
put("picture", "huge.ppm", b"P6 65535 65535 255\n" + bytes(12))
put("picture", "empty", b"")

# Tables and texts.
for name, text in {"plain": "a,b\n1,2\n3,4.5\n", "quotes": 'a,"b ""c"""\n1,"2\n3"\n', "open": 'a,b\n1,"2\n3,4\n', "words": "x;y\n1,5;red\nNA;blue\n",
                   "comments": "# c\na b\n1 2\n3 ?\n", "rows": "1,2\n1,2,3\n", "names": "a,a,\n1,2,3\n", "wide": "a,b\n9007199254740993,1e400\n-0,inf\n"}.items():
    put("csv", name, b"\0" + text.encode())
    put("csv", name + "-options", bytes([0b01111010]) + text.encode())
put("csv", "tabs", b"\1a\tb\n1\t2\n")
put("csv", "utf-16", b"\0" + "a,b\n1,2\n".encode("utf-16"))
put("csv", "packed", b"\0" + gzip.compress(b"a,b\n1,2\n", mtime=0))
put("csv", "bomb", b"\0" + gzip.compress(bytes(70 << 20), mtime=0))
put("arff", "plain", "@relation r\n@attribute a numeric\n@attribute 'b c' {x, 'y z'}\n@attribute d string\n@data\n1,'y z',t\n?,x,\"u\"\n")
put("arff", "sparse", "@RELATION r\n% c\n@ATTRIBUTE a REAL\n@ATTRIBUTE b {u,v}\n@DATA\n{0 1.5, 1 v}\n{}\n")
put("arff", "sparse-far", "@relation r\n@attribute a real\n@data\n{99999999999 1}\n")
for path in ["messages.parquet", "people.parquet", "people-zstd.parquet", "sets/datasets/plain.parquet", "sets/datasets/paths.parquet"]:
    copy("parquet", path)
rows = [{"text": "red green", "label": "ham"}, {"text": "blue", "label": "spam"}]
lines = "".join(json.dumps(row) + "\n" for row in rows)
for i, text in enumerate(["text,label\nred green,ham\n\"bl,ue\",spam\n", "text\tlabel\nred\tham\nblue\tspam\n", lines, json.dumps(rows),
                          "NUM:a red\nABBR:b blue\n", "ham\tred\nspam\tblue\n"]):
    put("texts", f"form-{i}", bytes([i]) + text.encode())
put("texts", "deep", b"\3" + b"[" * 20000)
put("texts", "several", b"\2" + b'{"text": "red", "labels": ["a", "b"]}\n{"text": "", "labels": []}\n')
listing = [{"path": "a.png", "label": "x", "site": "s"}, {"path": "b.png", "label": "y", "site": None}]
for i, text in enumerate(["path,label,site\na.png,x,s\nb.png,y,\n", "path\tlabel\na.png\t0\nb.png\t1\n", "".join(json.dumps(row) + "\n" for row in listing), json.dumps(listing)]):
    put("manifest", f"form-{i}", bytes([i]) + text.encode())
for i, name in enumerate(["/etc/passwd", "../pictures/one/a.png", "", ".", "a\\u0000b", "/dev/zero", "absent.png"]):
    put("manifest", f"outside-{i}", b"\6" + f'{{"path": "{name}", "label": 0}}\n{{"path": "a.png", "label": 1}}\n'.encode())
put("manifest", "several", b"\2" + b'{"image": "a.png", "labels": ["u", "v"]}\n{"image": "b.png", "labels": []}\n')
def tarred(members, form=tarfile.USTAR_FORMAT):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.size = kind, len(content) if kind == tarfile.REGTYPE else 0
            member.linkname = "/etc/passwd" if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ""
            archive.addfile(member, io.BytesIO(content))
    return out.getvalue()[:-8192]
png = (DATA / "pictures/bits1.png").read_bytes()
file = tarfile.REGTYPE
plain = [("a/0.png", png, file), ("a/0.cls", b"1", file), ("a/1.png", png, file), ("a/1.json", b'{"label": 0}', file)]
put("tar", "plain", b"\0" + tarred(plain))
put("tar", "packed", b"\1" + gzip.compress(tarred(plain), mtime=0))
put("tar", "long-names", b"\0" + tarred([("x" * 200 + ".png", png, file), ("x" * 200 + ".cls", b"1", file)], tarfile.GNU_FORMAT))
put("tar", "outside", b"\0" + tarred([("../../a.png", png, file), ("../../a.cls", b"0", file), ("/b.png", png, tarfile.SYMTYPE), ("/b.cls", b"1", file)]))
put("tar", "links", b"\0" + tarred([("a.png", b"", tarfile.SYMTYPE), ("a.cls", b"", tarfile.LNKTYPE)]))
large = bytearray(tarred(plain))
large[124:136] = b"\x80" + b"\0" * 3 + b"\xff" * 8  # a size of 2^64 - 1
put("tar", "large", b"\0" + bytes(large))

# Tokenizers, choices, and what a run leaves.
vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "##der", ",", "don"])}
model = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocabulary}
special = {name: {"id": name, "ids": [vocabulary[name]], "tokens": [name]} for name in ["[CLS]", "[SEP]"]}
pair = [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "[SEP]", "type_id": 0}}]
whole = {"version": "1.0", "truncation": None, "padding": None,
         "added_tokens": [{"id": 4, "content": "[MASK]", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
         "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
         "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": {"type": "TemplateProcessing", "single": pair, "pair": pair, "special_tokens": special},
         "decoder": {"type": "WordPiece"}, "model": model}
put("tokenizer", "whole", json.dumps(whole))
put("tokenizer", "bare", json.dumps({"model": model}))
put("tokenizer", "far", json.dumps({"model": model | {"vocab": vocabulary | {"x": 4294967295}}}))
put("tokenizer", "processing", json.dumps(whole | {"post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}}))
put("tokenizer", "deep", b"[" * 20000)
put("tokenizer_config", "usual", json.dumps({"do_lower_case": True, "model_max_length": 512, "tokenizer_class": "BertTokenizer", "unk_token": "[UNK]",
    "added_tokens_decoder": {"4": {"content": "[MASK]", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}}}))
put("tokenizer_config", "large", json.dumps({"model_max_length": 1000000000000000019884624838656, "cls_token": {"content": "[CLS]"}}))
put("vocabulary", "words", "\n".join(vocabulary) + "\n")
put("vocabulary", "twice", "[PAD]\r\n[UNK]\r\n[CLS]\n[SEP]\nred\nred\n\n")
for i, text in enumerate(["4, 1-2,1", "class:dog", "n:6@3", "path:s?/[ab].png, 5", "where:site!=berlin & year=2020", "level:2=a.png", '"path:d,e.png",0',
                          "0 # the first\n\n3-4\n", "index\n1\r\n2.0\n", "n:99999999999", "0-18446744073709551615", "path:" + "*a" * 30 + "b", "level:99999=x", "class:[31m"]):
    put("spec", f"{i:02}", text)
net = (DATA / "nets/small_cnn.safetensors").read_bytes()
own = hashlib.sha256(struct.pack("<Q", len(net)) + net).hexdigest()
for name, before, after, row in [("other", "0" * 64, "1" * 64, 0), ("own", own, "1" * 64, 3), ("reverse", "1" * 64, own, 3), ("outside", own, own, 10)]:
    header = {"__metadata__": {"scrubjay.delta": json.dumps({"version": 1, "before": before, "after": after, "weights": []})},
              "rows/fc.bias": tensor("I64", [1], 0, 8), "new/fc.bias": tensor("F32", [1], 8, 12), "old/fc.bias": tensor("F32", [1], 12, 16)}
    put("delta", name, tensors(header, struct.pack("<qff", row, 1, 2)))
put("delta", "none", mlp())
put("stage", "begun", tensors({"__metadata__": {"identity": "a", "batch": "0", "notes": "[\"n\"]", "epochs": "3"}, "soft_labels": tensor("F32", [2], 0, 8),
    "nudge": tensor("F64", [1], 8, 16), "values": tensor("F32", [1], 16, 20), "memory": tensor("F32", [0], 20, 20)}, bytes(20)))
put("stage", "no-nudge", tensors({"__metadata__": {"identity": "a", "batch": "0", "notes": "[]", "epochs": "0"}, "soft_labels": tensor("F32", [0], 0, 0),
    "nudge": tensor("F64", [0], 0, 0), "values": tensor("F32", [0], 0, 0), "memory": tensor("F32", [0], 0, 0)}))
put("events", "begun", '{"version":4,"identity":"a"}\n')
put("events", "cut", '{"version":4,"identity":"a"}\n{"batch":0,')
put("events", "older", '{"version":1,"identity":"a"}\n')
put("train", "usual", json.dumps({"excluded": [1, 2], "data_sha256": {"train": "00"}}))
put("train", "wrong", json.dumps({"excluded": [-1, 1e30, "x"], "data_sha256": [1]}))
