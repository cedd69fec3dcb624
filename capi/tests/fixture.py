"""Makes the small data sets of the C tests, and compares what a C program wrote with what the commands wrote.

fixture.py make FOLDER       train.safetensors and val.safetensors: three classes of points in eight dimensions
fixture.py texts FOLDER      bert, a recorded model of texts, and texts.safetensors with its texts, also as ids.i64 and mask.i64
                             and words.csv, texts to make a model with a tokenizer of
fixture.py add-v FOLDER      with-v.safetensors: the training data with the vector of v.f32
fixture.py compare FOLDER    exits with 1 where a result differs in a bit
"""

import json
import math
import random
import struct
import sys
from pathlib import Path


def write(path, tensors):
    """A safetensors file of {name: (dtype, shape, bytes)}."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def read(path):
    """The bytes of every tensor."""
    file = path.read_bytes()
    (length,) = struct.unpack("<Q", file[:8])
    header = json.loads(file[8 : 8 + length])
    data = file[8 + length :]
    return {name: data[slice(*at["data_offsets"])] for name, at in header.items() if name != "__metadata__"}


def points(count, seed, v=None):
    """Samples around three centres, with labels in turn."""
    draw = random.Random(seed)
    x, y = [], []
    for i in range(count):
        label = i % 3
        x += [draw.gauss(0.7 * math.cos(2 * label + j), 1.0) for j in range(8)]
        y.append(label)
    tensors = {"x": ("F32", [count, 8], struct.pack(f"<{8 * count}f", *x)), "y": ("I64", [count], struct.pack(f"<{count}q", *y))}
    if v is not None:
        tensors["v"] = ("F32", [len(v) // 4], v)
    return tensors


def make(folder):
    write(folder / "train.safetensors", points(150, 1))
    write(folder / "val.safetensors", points(60, 2))


def texts(folder):
    """The recorded texts beside the model are what it is tried on."""
    recorded = Path(__file__).parents[2] / "tests/data/nets/bert_tiny.safetensors"
    (folder / "bert").mkdir()
    (folder / "bert/model.safetensors").write_bytes(recorded.read_bytes())
    config = {"model_type": "bert", "num_attention_heads": 4, "hidden_act": "gelu_new"}
    (folder / "bert/config.json").write_text(json.dumps(config))
    tensors = read(recorded)
    ids, mask = tensors["golden.input_ids"], tensors["golden.attention_mask"]
    (folder / "ids.i64").write_bytes(ids)
    (folder / "mask.i64").write_bytes(mask)
    shape = [3, len(ids) // 24]
    rows = [f"{'the cat and a dog' if i % 2 else 'a small green tree'} number {i % 7},{i % 2}" for i in range(24)]
    (folder / "words.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    label = ("I64", [3], struct.pack("<3q", 0, 1, 2))
    write(folder / "texts.safetensors", {"input_ids": ("I64", shape, ids), "attention_mask": ("I64", shape, mask), "y": label})


def add_v(folder):
    write(folder / "with-v.safetensors", points(150, 1, (folder / "v.f32").read_bytes()))


def same(what, a, b):
    if a != b:
        sys.exit(f"{what}: the C program and the command differ")


def compare(folder):
    floats = lambda name: (folder / f"{name}.f32").read_bytes()
    trace, copies, curvature = (read(folder / f"{name}.safetensors") for name in ("trace", "copies", "curvature"))
    same("logits", floats("logits"), trace["logits"][: len(floats("logits"))])
    same("activations", floats("activations"), trace["activations"])
    same("losses", floats("losses"), trace["loss"])
    same("copies", floats("copies"), copies["activations"])
    of_texts, text_copies = (read(folder / f"{name}.safetensors") for name in ("text-trace", "text-copies"))
    same("logits of texts", floats("text-logits"), of_texts["logits"])
    same("copies of texts", floats("text-copies"), text_copies["activations"])
    for name in ("gradient", "hv", "step"):
        same(name, floats(name), curvature[name])
    model = (folder / "out-command/model.safetensors").read_bytes()
    for out in ("out-c", "saved-after-run", "saved-after-scrub", "out-resumed"):
        same(out, (folder / out / "model.safetensors").read_bytes(), model)
    records = lambda out: [
        {**record, "account": {**record["account"], "seconds": None}} if "account" in record else record
        for record in map(json.loads, (folder / out / "events.jsonl").read_text().splitlines())
    ]
    same("records", records("out-c"), records("out-command"))
    report = lambda out: {**json.loads((folder / out / "report.json").read_text()), "seconds": 0, "command": None, "records": 0}
    same("report", report("out-c"), report("out-command"))
    verified = lambda of: {**json.loads((folder / f"verify-{of}.json").read_text()), "seconds": 0, "command": None}
    found, expected = verified("c"), verified("command")
    for report in (found, expected):
        report["after"]["path"] = report["sets"]["test"]["data"] = None  # as they were given
    same("verification", found, expected)
    for ours, theirs in (("saved-trained", "model"), ("out-trained", "out-trained-command"), ("out-trained/epoch-2", "out-trained-command/epoch-2")):
        for name in ("model.safetensors", "config.json"):
            same(f"{ours}/{name}", (folder / ours / name).read_bytes(), (folder / theirs / name).read_bytes())
    same("continued", *((folder / out / "model.safetensors").read_bytes() for out in ("saved-continued", "continued-command")))
    trained = lambda of: json.loads((folder / of / "train.json").read_text())
    timeless = lambda of: {**trained(of), "epochs": [{**epoch, "seconds": 0} for epoch in trained(of)["epochs"]]}
    same("train.json", timeless("out-trained"), timeless("out-trained-command"))
    loaded = lambda name: json.loads((folder / name).read_text())
    inspected = loaded("inspect.json")
    same("inspection of data", loaded("c-inspect-data.json"), inspected.pop("data"))
    same("inspection", loaded("c-inspect.json"), inspected)
    scores = [float(x) for x in (folder / "c-eval.txt").read_text().split()]
    same("evaluation", scores, [loaded("eval.json")[name] for name in ("correct", "accuracy", "loss")])
    for name in ("steps.svg", "graph.dot"):
        same(name, (folder / f"c-{name}").read_text(), (folder / name).read_text())
    same("graph", loaded("c-graph.json"), loaded("graph.json"))
    codec = json.loads((folder / "codec.json").read_text())
    xi = json.loads((folder / "xi.json").read_text())
    foci = json.loads((folder / "foci.json").read_text())
    lines = (folder / "codec.txt").read_text().splitlines()
    same("codec", [float(x) for x in lines[0].split()], [codec["statistic"], codec["p_value"], *codec["interval"]])
    same("xi", [float(x) for x in lines[1].split()], [xi["statistic"], xi["p_value"]])
    steps = [line.split() for line in lines[2:-1]]
    same("foci", [["abc"[int(step[0])] for step in steps], lines[-1]], [[str(step) for step in foci["names"]], foci["stopped"]])
    grouped = json.loads((folder / "groups.json").read_text())
    steps_of = [line.split() for line in (folder / "groups.txt").read_text().splitlines()]
    same("groups", [step[0] for step in steps_of], grouped["names"])
    same("groups' T", [[float(step[i]) for step in steps_of] for i in (1, 2)], [grouped["conditional"], grouped["cumulative"]])
    same("foci's T", [[float(step[1]) for step in steps], [float(step[2]) for step in steps]], [foci["conditional"], foci["cumulative"]])


{"make": make, "texts": texts, "add-v": add_v, "compare": compare}[sys.argv[1]](Path(sys.argv[2]))
