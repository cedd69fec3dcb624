"""Training, inspection, evaluation, tables from files, graphs, devices and benchmarks: what the program does, from Python."""

import json
import os
import signal

import numpy as np
import pytest

import scrubjay
from conftest import write_safetensors
from scrubjay import _native
from scrubjay._options import Reading, Recipe

CPU = dict(device="cpu", threads=2)


@pytest.fixture(scope="module")
def files(points, tmp_path_factory):
    """The points in files."""
    folder = tmp_path_factory.mktemp("commands")
    for name, (x, y) in zip(("train", "val"), points):
        write_safetensors(folder / f"{name}.safetensors", {"x": x, "y": y.astype(np.int64)})
    return folder


def options_of(**options):
    """Options as the command line has them."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]


RECIPE = dict(epochs=3, batch_size=20, lr=0.1, optimizer="adam", schedule="step", warm_up=1, weight_decay=0.01, decay="weights", seed=4)


def test_training_gives_the_bytes_of_the_program(program, files, points, tmp_path):
    data, val = files / "train.safetensors", files / "val.safetensors"
    given = options_of(**RECIPE, arch="mlp:7", data=data, val=val, exclude="0-9,class:2", keep_epochs=2)
    program("train", *given, "--out", tmp_path / "command", "--device", "cpu", "--threads", 2)

    ran = scrubjay.train(
        data, arch="mlp:7", val=val, exclude="0-9,class:2", keep_epochs=[2], out=tmp_path / "ran", progress=False, **CPU, **RECIPE
    )
    for name in ("model.safetensors", "config.json", "epoch-2/model.safetensors", "epoch-2/config.json"):
        assert (tmp_path / "ran" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    manifests = [json.loads((tmp_path / folder / "train.json").read_text()) for folder in ("ran", "command")]
    for manifest in manifests:
        for epoch in manifest["epochs"]:
            epoch["seconds"] = 0
    assert manifests[0] == manifests[1] and ran.folder == str(tmp_path / "ran")
    assert ran.manifest["excluded"] == [i for i in range(240) if i < 10 or i % 3 == 2]

    # In memory, of files and of arrays, by a mask and by indices.
    left = np.array([i < 10 or i % 3 == 2 for i in range(240)])
    seen = []
    given = dict(arch="mlp:7", **CPU, **RECIPE)
    of_files = scrubjay.train(data, val=val, exclude=np.flatnonzero(left), progress=seen.append, **given)
    of_arrays = scrubjay.train(points[0], val=points[1], exclude=left, progress=False, **given)
    assert [one["epoch"] for one in seen] == [1, 2, 3] and seen == of_files.history
    timeless = [{**one, "seconds": 0} for one in of_files.history]
    assert timeless == manifests[1]["epochs"] and of_files.history[0]["val_accuracy"] is not None
    for trained in (of_files, of_arrays):
        trained.save(tmp_path / "saved")
        for name in ("model.safetensors", "config.json"):
            assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "command" / name).read_bytes(), name
    more = scrubjay.train(points[0], arch="mlp:7", classes=5, label_smoothing=0.1, progress=False, **CPU, **RECIPE)
    assert more.state_dict()["fc2.weight"].shape == (5, 7)


def test_training_goes_on_with_a_model(program, files, points, tmp_path):
    data = files / "train.safetensors"
    scrubjay.train(data, arch="mlp:7", out=tmp_path / "first", epochs=2, progress=False, **CPU)
    program("train", "--model", tmp_path / "first", "--data", data, "--epochs", 2, "--seed", 3, "--out", tmp_path / "command", "--device", "cpu")
    expected = (tmp_path / "command/model.safetensors").read_bytes()
    given = dict(model=tmp_path / "first", epochs=2, seed=3, progress=False, **CPU)
    scrubjay.train(data, out=tmp_path / "ran", **given)
    assert (tmp_path / "ran/model.safetensors").read_bytes() == expected
    more = scrubjay.train(points[0], **given)
    more.save(tmp_path / "saved")
    assert (tmp_path / "saved/model.safetensors").read_bytes() == expected
    assert "model.safetensors" in os.listdir(tmp_path / "first")


def test_a_module_is_trained_and_takes_the_weights(points):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.ReLU(), torch.nn.Linear(12, 3))
    before = scrubjay.evaluate(module, points[1], **CPU)
    trained = scrubjay.train(points[0], model=module, epochs=10, lr=0.1, progress=False, **CPU)
    assert scrubjay.evaluate(module, points[1], **CPU) == before  # as it was
    after = scrubjay.evaluate(trained.apply(module), points[1], **CPU)
    assert after.accuracy > 0.9 and after.loss < before.loss
    with torch.no_grad():
        logits = module(torch.as_tensor(points[1][0]))
    y = torch.as_tensor(points[1][1])
    assert after.correct == int((logits.argmax(1) == y).sum()) and after.n == 90
    assert after.loss == pytest.approx(float(torch.nn.functional.cross_entropy(logits.double(), y)), rel=1e-5)
    assert after.classes == [(int(((logits.argmax(1) == y) & (y == k)).sum()), 30) for k in range(3)]


def test_what_training_refuses(files, points, tmp_path):
    data = files / "train.safetensors"
    for given, text in [
        (dict(), "one of the two is needed"),
        (dict(arch="mlp:4", model=tmp_path), "one of the two is needed"),
        (dict(arch="cat"), "no model that can be made"),
        (dict(arch="mlp:4", lr=-1), "lr -1"),
        (dict(arch="mlp:4", epochs=0), "epochs 0"),
        (dict(arch="mlp:4", momentum=2), "momentum"),
        (dict(arch="mlp:4", warm_up=99), "99 epochs of warm-up"),
        (dict(arch="mlp:4", exclude=[240]), "sample 240 of a set of 240"),
        (dict(arch="mlp:4", exclude="0-239"), "leaves no samples"),
        (dict(arch="mlp:4", heads=2), "heads, stem, ignore and weights are for model"),
        (dict(arch="mlp:4", nothing=1), "unknown field `nothing`"),
        (dict(arch="mlp:4", keep_epochs=[1]), "keep_epochs is for out"),
    ]:
        for where in (data, points[0]):
            if where is not data and {"keep_epochs", "heads"} & given.keys():
                continue
            with pytest.raises(scrubjay.ConfigError, match=text):
                scrubjay.train(where, progress=False, **CPU, **given)
    with pytest.raises(scrubjay.ConfigError, match="out and keep_epochs are for data"):
        scrubjay.train(points[0], arch="mlp:4", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(scrubjay.ConfigError) as caught:
        _native.train_files(_native.Device("cpu", 1), '{"data": "none"}', "{}", "mlp:4", None, '{"nothing": 1}', None, [], print)
    known = set(str(caught.value).split("expected one of ")[1].replace("`", "").split(", "))
    assert known == set(Recipe.__annotations__) - set(Reading.__annotations__)


def test_ctrl_c_ends_a_training(points):
    def press(report):
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(scrubjay.Interrupted, match="nothing of this training is kept"):
        scrubjay.train(points[0], arch="mlp:64", epochs=100_000, progress=press, **CPU)

    def broken(report):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        scrubjay.train(points[0], arch="mlp:4", epochs=100_000, progress=broken, **CPU)


def test_inspection_and_evaluation_are_those_of_the_program(program, files, points, tmp_path):
    data = files / "train.safetensors"
    scrubjay.train(data, arch="mlp:7", out=tmp_path / "model", epochs=2, progress=False, **CPU)
    both = ["--model", tmp_path / "model", "--data", data]
    found = scrubjay.inspect(tmp_path / "model", data)
    assert found.report == json.loads(program("inspect", *both, "--json"))
    assert str(found) + "\n" == program("inspect", *both)
    longer = scrubjay.inspect(tmp_path / "model", program=True)
    assert str(longer) + "\n" == program("inspect", "--model", tmp_path / "model", "--program")
    assert found.family == "mlp" and found.layers[0] == {"layer": "fc1", "units": 7, "parameters": 63} and found.assumed == []
    assert str(scrubjay.inspect(data=data)) + "\n" == program("inspect", "--data", data)
    of_arrays = scrubjay.inspect(data=points[0])
    assert of_arrays.data["classes"] == found.data["classes"] and of_arrays.family is None
    # An image, as the program writes it.
    pixels = np.random.default_rng(0).random((4, 1, 6, 5)).astype(np.float32)
    write_safetensors(tmp_path / "images.safetensors", {"x": pixels, "y": np.arange(4)})
    images = tmp_path / "images.safetensors"
    scrubjay.inspect(data=images, image_out=tmp_path / "ours.png", index=2)
    program("inspect", "--data", images, "--image-out", tmp_path / "theirs.png", "--index", 2)
    assert (tmp_path / "ours.png").read_bytes() == (tmp_path / "theirs.png").read_bytes()
    for given, text in [(dict(), "none is given"), (dict(data=points[0], image_out="x.png"), "data in files"), (dict(data=data, precision="bf16"), "for a model")]:
        with pytest.raises(scrubjay.ConfigError, match=text):
            scrubjay.inspect(**given)

    scores = scrubjay.evaluate(tmp_path / "model", files / "val.safetensors", **CPU)
    printed = json.loads(program("eval", "--model", tmp_path / "model", "--data", files / "val.safetensors", "--json", "--device", "cpu"))
    assert (scores.n, scores.correct, scores.accuracy, scores.loss) == tuple(printed[name] for name in ("n", "correct", "accuracy", "loss"))
    assert scores.classes == [(one["correct"], one["n"]) for one in printed["classes"]]


def test_rows_of_layers_are_blocks_of_the_program_s_units(program, files, points, tmp_path):
    """Products and solves on chosen rows against the whole matrix, and against the command."""
    scrubjay.train(files / "train.safetensors", arch="mlp:7", out=tmp_path / "model", epochs=3, progress=False, **CPU)
    model, rows = tmp_path / "model", {"fc1": [0, 5], "fc2.weight": np.array([False, True, False])}
    rng = np.random.default_rng(1)
    v = {name: rng.normal(size=values.shape) for name, values in scrubjay.gradient(model, points[0], **CPU).items()}
    inside = {name: np.zeros_like(values) for name, values in v.items()}
    for name, layer in [("fc1", [0, 5]), ("fc2", [1])]:
        for part in ("weight", "bias"):
            inside[f"{name}.{part}"][layer] = v[f"{name}.{part}"][layer]
    whole = scrubjay.hvp(model, points[0], inside, **CPU)
    part = scrubjay.hvp(model, points[0], v, rows=rows, **CPU)
    for name in v:
        kept = [0, 5] if name.startswith("fc1") else [1]
        assert np.allclose(part[name][kept], whole[name][kept], rtol=1e-4, atol=1e-7), name
        assert not np.delete(part[name], kept, axis=0).any(), name
    gradient = scrubjay.gradient(model, points[0], rows=rows, **CPU)
    every = scrubjay.gradient(model, points[0], **CPU)
    assert gradient.keys() == every.keys()
    assert np.allclose(gradient["fc1.weight"][[0, 5]], every["fc1.weight"][[0, 5]], rtol=1e-5, atol=1e-8) and not gradient["fc1.weight"][1].any()
    assert scrubjay.gradient(model, points[0], rows={"fc2": [0]}, **CPU).keys() == {"fc2.weight", "fc2.bias"}
    assert scrubjay.gradient(model, points[0], ["fc1.bias"], rows={"fc1": [3]}, **CPU)["fc1.bias"].nonzero()[0].tolist() == [3]

    step = scrubjay.solve(model, points[0], rows=rows, kind="ggn", damping=0.1, **CPU)
    back = scrubjay.hvp(model, points[0], step.x, rows=rows, kind="ggn", **CPU)
    for name in v:
        off = back[name] + 0.1 * step.x[name] - gradient[name]
        assert np.linalg.norm(off) <= 1e-4 * np.linalg.norm(gradient[name]) + 1e-7, name

    # The command's own block: rows in the order of the list, weight row and bias.
    (tmp_path / "block.json").write_text('[["fc1", 0], ["fc1", 5], ["fc2", 1]]')
    words = ["--curvature", "ggn", "--damping", 0.1, "--solve", "--device", "cpu"]
    program(
        "curvature", "--model", model, "--input", files / "train.safetensors", "--block", tmp_path / "block.json", "--out",
        tmp_path / "curvature.safetensors", *words,
    )
    stored = (tmp_path / "curvature.safetensors").read_bytes()
    size = int.from_bytes(stored[:8], "little")
    at = json.loads(stored[8 : 8 + size])["step"]
    of_command = np.frombuffer(stored[8 + size :][slice(*at["data_offsets"])], dtype=np.float32)
    ours = [value for name, row in [("fc1", 0), ("fc1", 5), ("fc2", 1)] for value in (*step.x[f"{name}.weight"][row], step.x[f"{name}.bias"][row])]
    assert np.array_equal(np.array(ours, dtype=np.float32), of_command)

    for wrong, text in [
        ({"fc9": [0]}, "no linear or convolutional layer is named `fc9`"),
        ({"fc1": [7]}, "sample 7 of a set of 7|row 7"),
        ({"fc1": []}, "no row of `fc1`"),
        ({"fc1": "0-1"}, "indices or a mask"),
    ]:
        with pytest.raises(scrubjay.ConfigError, match=text):
            scrubjay.gradient(model, points[0], rows=wrong, **CPU)
    with pytest.raises(scrubjay.ConfigError, match="of layer `fc1` no parameter is asked for"):
        scrubjay.hvp(model, points[0], {"fc2.bias": np.ones(3)}, rows={"fc1": [0]}, **CPU)


CELLS = "\n".join(
    ["a;b;kind;y", *(f"{i * 37 % 90},5;{i * 13 % 89};{'red' if i % 3 == 0 else 'blue'};{(i * 13 % 89 - 40) * (1 if i % 3 == 0 else -1)}" for i in range(90)), "7;;red;1", ""]
)


def test_tables_of_files_are_read_as_by_the_program(program, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(CELLS)
    table = scrubjay.read_table(path, categorical="kind:onehot", missing="omit")
    assert table.names == ["a", "b", "kind", "y"] and len(table) == 90 and table.omitted == 1 and table.values.shape == (90, 5)
    assert table["a"][:3].tolist() == [0.5, 37.5, 74.5] and table["kind"].sum(1).tolist() == [1.0] * 90 and table[["a", 3]].shape == (90, 2)
    assert table.drop(["b"]).names == ["a", "kind", "y"] and np.array_equal(table.drop(["b"])["y"], table["y"])
    found = scrubjay.foci(table, "y", **CPU)
    given = ["foci", path, "--categorical", "kind:onehot", "--missing", "omit"]
    printed = json.loads(program(*given, "--target", "y", "--json", "--plot", tmp_path / "theirs.svg"))
    for name in ("names", "order", "conditional", "cumulative", "stopped"):
        assert getattr(found, name) == printed[name], name
    found.save_plot(tmp_path / "ours.svg")
    assert (tmp_path / "ours.svg").read_text() == (tmp_path / "theirs.svg").read_text()
    grouped = scrubjay.foci(table, "y", groups=[["kind", "b"]], initial=["a"], **CPU)
    printed = json.loads(program(*given, "--target", "y", "--group", "kind,b", "--initial", "a", "--json"))
    assert (grouped.names, grouped.conditional) == (printed["names"], printed["conditional"])
    some = scrubjay.read_table(path, "y,b", missing="omit")
    value = json.loads(program("codec", path, "--y", "y", "--z", "b", "--missing", "omit", "--json"))["statistic"]
    assert scrubjay.codec(some["y"], some["b"], **CPU).value == value and scrubjay.read_table(path, ["y", 0]).names == ["y", "a"]
    for given, error, text in [
        (dict(missing="omit"), scrubjay.DataError, "kind.*categorical|categorical.*kind"),
        (dict(columns="a,b"), scrubjay.DataError, "missing"),
        (dict(columns="a,none"), scrubjay.ConfigError, "no column `none`"),
        (dict(delimiter="ab"), scrubjay.ConfigError, "ab"),
        (dict(header="maybe"), scrubjay.ConfigError, "maybe"),
    ]:
        with pytest.raises(error, match=text):
            scrubjay.read_table(path, **given)


def test_graphs_are_those_of_the_program_and_go_on(program, tmp_path):
    path = tmp_path / "cells.csv"
    path.write_text(CELLS)
    table = scrubjay.read_table(path, categorical=["kind"], missing="omit")
    seen = []
    kept = tmp_path / "kept.jsonl"
    graph = scrubjay.foci_graph(table, seed=2, resume=kept, progress=lambda *now: seen.append(now), **CPU)
    given = ["foci", path, "--graph", "--categorical", "kind", "--missing", "omit", "--seed", 2, "--json"]
    printed = json.loads(program(*given, "--dot", tmp_path / "theirs.dot", "--resume", kept))  # reads what Python wrote
    assert graph.names == printed["names"] and [list(edge) for edge in graph.edges] == printed["edges"] and seen[-1] == (4, 4)
    for ours, theirs in zip(graph.blankets, printed["blankets"]):
        assert (ours.order, ours.conditional, ours.stopped) == (theirs["order"], theirs["conditional"], theirs["stopped"])
    assert graph.dot == (tmp_path / "theirs.dot").read_text()
    again = scrubjay.foci_graph(table.values, seed=2, **CPU)
    assert again.edges == graph.edges and again.names == ["0", "1", "2", "3"]
    with pytest.raises(scrubjay.ConfigError, match="other values or options"):
        scrubjay.foci_graph(table, seed=3, resume=kept, **CPU)
    with pytest.raises(scrubjay.ConfigError, match="one per category"):
        scrubjay.foci_graph(scrubjay.read_table(path, categorical=["kind:onehot"], missing="omit"), **CPU)


def test_ctrl_c_ends_a_graph_with_what_was_found():
    x = np.random.default_rng(0).normal(size=(1000, 25))

    def press(done, columns):
        if done:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(scrubjay.Interrupted) as caught:
        scrubjay.foci_graph(x, all=True, max_features=3, progress=press, device="cpu", threads=1)
    found = [blanket is not None for blanket in caught.value.result.blankets]
    assert any(found) and not all(found)


def test_devices_and_benchmarks(program):
    assert scrubjay.devices()["cuda"].keys() == json.loads(program("devices", "--json"))["cuda"].keys()
    assert scrubjay.bench_cases() == json.loads(program("bench", "--list", "--json"))["kernels"]
    row = scrubjay.bench("linear", m=8, c=8, o=8, **CPU)
    assert row["passes"] and row["shape"] == "m=8,c=8,o=8" and row["floor"] > 0 and row["least"] <= row["median"]
    for kernel, axes, text in [("none", {}, "no case `none`"), ("copy", {"m": 1}, "no axis `m`"), ("copy", {"len": 0}, "0 is no size")]:
        with pytest.raises(scrubjay.ConfigError, match=text):
            scrubjay.bench(kernel, **CPU, **axes)
