"""Unlearning from arrays and files; without PyTorch, but for where it is named."""

import json
import os
import re
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import scrubjay
from conftest import write_safetensors
from scrubjay import _native
from scrubjay._options import Options, Reading, as_json
from scrubjay._weights import tensor

QUICK = dict(method="lcodec", perturbations=30, products=4, stages=1, gate=1.0, progress=False, device="cpu", threads=2)


def weights(points, seed=0):
    """A network of two layers that is trained a little, as tensors by name."""
    (x, y), _ = points
    rng = np.random.default_rng(seed)
    w1, b1 = rng.normal(size=(12, 8)) / 3, np.zeros(12)
    w2, b2 = rng.normal(size=(3, 12)) / 3, np.zeros(3)
    for _ in range(200):
        h = np.maximum(x @ w1.T + b1, 0)
        z = h @ w2.T + b2
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        d = (p - np.eye(3)[y]) / len(x)
        back = (d @ w2) * (h > 0)
        w2 -= d.T @ h
        b2 -= d.sum(0)
        w1 -= back.T @ x
        b1 -= back.sum(0)
    named = {"fc1.weight": w1, "fc1.bias": b1, "fc2.weight": w2, "fc2.bias": b2}
    return {name: values.astype(np.float32) for name, values in named.items()}


@pytest.fixture(scope="module")
def files(points, tmp_path_factory):
    """A model and its data in files."""
    folder = tmp_path_factory.mktemp("files")
    (folder / "model").mkdir()
    write_safetensors(folder / "model/model.safetensors", weights(points))
    (folder / "model/config.json").write_text('{"input_size": [8, 1, 1]}')
    for name, (x, y) in zip(("train", "val"), points):
        write_safetensors(folder / f"{name}.safetensors", {"x": x, "y": y.astype(np.int64)})
    return folder


def bytes_of(tensors):
    return {name: np.asarray(values).tobytes() for name, values in tensors.items()}


def test_options_are_the_library_s():
    """The typed names are those that the library takes, and what it does not know is refused with a list of them."""
    known = {name for name in Options.__annotations__ if name not in Reading.__annotations__}
    assert expected_by(lambda: native_request('{"nothing": 1}')) == known
    assert expected_by(lambda: _native.Model.open("none", '{"nothing": 1}')) == set(Reading.__annotations__)


def test_options_of_any_type_go_over():
    given = {"a": np.int64(3), "b": np.array([1.5, 2]), "c": (True, np.bool_(False)), "d": Path("here"), "e": np.float32(0.5)}
    assert json.loads(as_json(given)) == {"a": 3, "b": [1.5, 2.0], "c": [True, False], "d": "here", "e": 0.5}
    with pytest.raises(scrubjay.ConfigError, match="an option of type object"):
        as_json({"a": object()})


def test_how_files_are_read(files):
    """Every option goes over, in every form."""
    given = dict(resize=8, crop="8x6", interpolation="box", skip_corrupt=True, inputs_memory=1, ignore=(), weights=())
    given |= dict(tokenizer=Path("none"), max_tokens=np.int64(4), text_column="words", label_column="kind")
    assert _native.Model.open(files / "model", as_json(given)).family == "mlp"
    for one, words in [(dict(ignore="none.*"), "no tensor `none.*` to ignore"), (dict(weights="ema"), "no weights under `ema`")]:
        with pytest.raises(scrubjay.ModelError, match=re.escape(words)):
            _native.Model.open(files / "model", as_json(one))
    for wrong, words in [
        (dict(resize="wide"), "`wide`: .*224x192"),
        (dict(crop=[8, 6]), "8,6.*a side as 224"),
        (dict(interpolation="soft"), "soft"),
        (dict(label_column=3), "a text or a list of texts"),
        (dict(max_tokens=-1), "-1"),
    ]:
        with pytest.raises(scrubjay.ConfigError, match=words):
            _native.Model.open(files / "model", as_json(wrong))


def test_columns_and_tokens_of_texts(program, tmp_path):
    rows = [f"{i % 2},word{i % 5} and some more of these {'odd' if i % 2 else 'even'} words" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["kind,said by", *rows]) + "\n")
    columns = ["--text-column", "said by", "--label-column", "kind"]
    program("train", "--arch", "distilbert:16-1-2-32", "--data", tmp_path / "t.csv", *columns, "--epochs", 1, "--out", tmp_path / "model")
    given = dict(text_column="said by", label_column="kind", device="cpu", threads=2)
    whole = scrubjay.traces(tmp_path / "model", tmp_path / "t.csv", **given)
    short = scrubjay.traces(tmp_path / "model", tmp_path / "t.csv", max_tokens=4, **given)
    assert len(whole.losses) == len(short.losses) == 40 and not np.array_equal(whole.losses, short.losses)
    # The same texts in memory.
    labels, texts = zip(*((int(kind), words) for kind, words in (row.split(",", 1) for row in rows)))
    given.pop("text_column"), given.pop("label_column")
    items = [{"text": text, "label": label} for text, label in zip(texts, labels)]
    for data in [(list(texts), labels), (np.array(texts), np.array(labels)), items]:
        assert np.array_equal(scrubjay.traces(tmp_path / "model", data, **given).logits, whole.logits)
    cut = scrubjay.traces(tmp_path / "model", (list(texts), labels), max_tokens=4, **given)
    assert np.array_equal(cut.logits, short.logits)
    # Sets of other lengths, and a whole removal.
    longer = [text + " and even more words" for text in texts]
    outcome = scrubjay.unlearn(
        tmp_path / "model", (list(texts), labels), range(8), val=(longer, labels), hold_epochs=1, despite=["near-chance"], progress=False, **given
    )
    assert outcome.removed + outcome.not_removed == 8
    with pytest.raises(scrubjay.DataError, match="data: sample 1 is of type int, where a text was expected"):
        scrubjay.traces(tmp_path / "model", (["a text", 3], [0, 1]), **given)


def test_a_type_that_is_not_known_is_refused():
    with pytest.raises(scrubjay.ConfigError, match="`w` is of F8_E4M3"):
        tensor("w", "F8_E4M3", [1], bytearray(1))


def expected_by(call):
    """The names that a refusal lists."""
    with pytest.raises(scrubjay.ConfigError) as caught:
        call()
    return set(str(caught.value).split("expected one of ")[1].replace("`", "").split(", "))


def native_request(options):
    x, y = np.zeros((3, 2), np.float32), np.zeros(3, np.uint32)
    samples = _native.Samples.of_images(x, y)
    tensors = [("weight", "F32", [2, 2], bytes(16)), ("bias", "F32", [2], bytes(8))]
    model = _native.Model.of_tensors(tensors, None, "{}", samples)
    return _native.Request(_native.Session.of(_native.Device("cpu", 1), model, samples), [0], options)


def test_arrays_and_files_give_the_same_bytes(files, points):
    train, val = points
    model = files / "model"
    from_files = scrubjay.unlearn(model, files / "train.safetensors", "0-19", val=files / "val.safetensors", **QUICK)
    from_arrays = scrubjay.unlearn(model, train, range(20), val={"x": val[0], "y": val[1]}, **QUICK)
    mask = np.arange(240) < 20
    from_mask = scrubjay.unlearn(model, files / "train.safetensors", mask, val=val, **QUICK)
    assert from_files.removed + from_files.not_removed == 20
    assert from_files.records[0]["units"] and from_files.report["family"] == "mlp"
    expected = bytes_of(from_files.state_dict())
    assert expected == bytes_of(from_arrays.state_dict()) == bytes_of(from_mask.state_dict())
    before = weights(points)
    assert any(expected[name] != before[name].tobytes() for name in before)


def test_a_label_is_a_class(files, points):
    train, val = points
    words = scrubjay.unlearn(files / "model", train, "class:2", val=val, **QUICK)
    label = scrubjay.unlearn(files / "model", train, forget_label=2, val=val, **QUICK)
    assert label.report["options"]["target"] == words.report["options"]["target"]
    assert label.report["request"] == words.report["request"] and len(label.report["request"]["samples"]) == 80
    two = scrubjay.estimate(files / "model", train, forget_label=[1, 2], val=val, **{k: v for k, v in QUICK.items() if k != "progress"})
    assert two["samples"] == 160


def test_results_are_those_of_the_program(program, files, points, tmp_path):
    words = ["--data", files / "train.safetensors", "--val", files / "val.safetensors", "--forget", "0-29", "--batch", 15]
    words += ["--method", "lcodec", "--perturbations", 30, "--products", 4, "--stages", 1, "--gate", 100, "--device", "cpu", "--threads", 2]
    program("scrub", "--model", files / "model", *words, "--out", tmp_path / "command")
    given = dict(QUICK, batch=15)
    outcome = scrubjay.unlearn(files / "model", points[0], range(30), val=points[1], **given)
    outcome.save(tmp_path / "saved")
    ran = scrubjay.unlearn(
        files / "model", files / "train.safetensors", "0-29", val=files / "val.safetensors", out=tmp_path / "ran", **given
    )
    expected = (tmp_path / "command/model.safetensors").read_bytes()
    assert (tmp_path / "saved/model.safetensors").read_bytes() == expected
    assert (tmp_path / "ran/model.safetensors").read_bytes() == expected

    def timeless(record):
        record["account"].pop("seconds")
        return record

    report = json.loads((tmp_path / "command/report.json").read_text())
    for mine in (outcome, ran):
        assert [timeless(record) for record in mine.records] == [timeless(dict(record, account=dict(record["account"]))) for record in report["records"]]
    outcome.save_report(tmp_path / "page.html")
    ran.save_report(tmp_path / "same.html")
    assert "of 30 samples removed" in (tmp_path / "page.html").read_text()
    assert (tmp_path / "same.html").read_bytes() == (tmp_path / "ran/report.html").read_bytes()
    again = scrubjay.unlearn(
        files / "model", files / "train.safetensors", "0-29", val=files / "val.safetensors", out=tmp_path / "ran", **given
    )
    assert (again.removed, again.not_removed) == (ran.removed, ran.not_removed)
    with pytest.raises(scrubjay.ConfigError, match="finished before"):
        again.state_dict()


def test_a_proxy_may_be_a_model(files, points):
    train, val = points
    given = dict(method="hold", hold_epochs=1, gate=1.0, progress=False, device="cpu", threads=2)
    kinds = {}
    for name, proxy in (("trained", "trained"), ("given", files / "model")):
        kinds[name] = scrubjay.unlearn(files / "model", train, range(20), val=val, proxy=proxy, proxy_epochs=1, **given)
    assert {name: one.records[0]["account"]["proxy"] for name, one in kinds.items()} == {"trained": "trained", "given": "given"}


def test_progress_and_messages(files, points):
    seen = []
    given = dict(QUICK, batch=100, if_empty="cheap", progress=lambda *step: seen.append(step))
    with pytest.warns(scrubjay.ScrubjayWarning, match="samples of class") as caught:
        scrubjay.unlearn(files / "model", points[0], range(200), val=points[1], **given)
    assert {one.filename for one in caught if one.category is scrubjay.ScrubjayWarning} == {__file__}  # where unlearn was called
    assert seen[0] == (0, 2, None) and seen[-1] == (2, 2, None)
    assert {phase for _, _, phase in seen} >= {"select", "solve", None}


def test_an_error_in_progress_is_raised(files, points):
    def broken(*_):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        scrubjay.unlearn(files / "model", points[0], range(20), val=points[1], **dict(QUICK, progress=broken))


def after_first(done, batches, phase):
    """Presses Ctrl-C when the first batch has ended."""
    if done == 1 and phase is None:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_ends_with_what_was_done(files, points):
    given = dict(QUICK, batch=10, perturbations=200, if_empty="cheap", progress=after_first)
    with pytest.raises(scrubjay.Interrupted) as caught:
        scrubjay.unlearn(files / "model", points[0], range(200), val=points[1], **given)
    outcome = caught.value.result
    assert isinstance(caught.value, KeyboardInterrupt) and outcome.interrupted
    done = len(outcome.records)
    assert 1 <= done < 20
    # The model is that of the last batch that was done.
    last, (x, y) = outcome.records[-1], points[0]
    losses = scrubjay.traces(outcome, (x[last["indices"]], y[last["indices"]])).losses
    assert last["removed"] and losses.mean() == pytest.approx(last["account"]["after"]["forget"]["loss"], rel=1e-5)


def test_ctrl_c_in_a_folder_goes_on(files, points, tmp_path):
    paths = dict(val=files / "val.safetensors", out=tmp_path / "out")
    given = dict(QUICK, batch=10, perturbations=200)
    with pytest.raises(scrubjay.Interrupted, match="goes on from there"):
        scrubjay.unlearn(files / "model", files / "train.safetensors", "0-99", **paths, **dict(given, progress=after_first))
    whole = scrubjay.unlearn(files / "model", files / "train.safetensors", "0-99", **paths, **given)
    assert len(whole.records) == 10
    other = scrubjay.unlearn(files / "model", files / "train.safetensors", "0-99", val=paths["val"], **given)
    assert bytes_of(whole.state_dict()) == bytes_of(other.state_dict())


def test_other_threads_run_meanwhile(files, points):
    ticks, over = [], threading.Event()

    def tick():
        while not over.wait(0.005):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    scrubjay.unlearn(files / "model", points[0], range(40), val=points[1], **dict(QUICK, perturbations=400))
    ended = time.monotonic()
    over.set()
    thread.join()
    gaps = np.diff([started, *(t for t in ticks if started < t < ended), ended])
    assert gaps.max() < max(0.5, 0.5 * (ended - started)), gaps.max()


@pytest.mark.parametrize(
    "change, words",
    [
        (dict(forget=None), ["forget, forget_label and forget_data"]),
        (dict(forget=[240]), ["sample 240 of a set of 240"]),
        (dict(forget=[True, False]), ["mask of shape (2,) for 240"]),
        (dict(forget=[0.5]), ["float64", "indices"]),
        (dict(forget="first ten"), ["first ten"]),
        (dict(forget=[]), ["empty"]),
        (dict(sigma=-1.0), ["sigma is a number above 0"]),
        (dict(target_loss=-1.0), ["target_loss is a number above 0"]),
        (dict(update="fast"), ["fast", "newton"]),
        (dict(speed=3), ["unknown field `speed`"]),
        (dict(retain=range(5)), ["to be forgotten and to be retained"]),
        (dict(forget_data="x.safetensors"), ["given: forget and forget_data"]),
        (dict(val=None, despite=["no-val"], forget=range(12), data=(np.zeros((30, 8), np.float32), [0] * 30)), ["too few retained"]),
        (dict(data=(np.zeros((3, 8), np.int64), [0, 1, 2])), ["data: x holds int64"]),
        (dict(data=(np.zeros((3, 8), np.float32), [0, -1, 2])), ["sample 1 has -1"]),
        (dict(data=(np.zeros((3, 8), np.float32), [0, 1])), ["3 samples"]),
        (dict(data=(np.full((3, 8), np.nan, np.float32), [0, 1, 2])), ["sample 0 holds the value NaN"]),
        (dict(data=3), ["data of type int"]),
        (dict(data={"x": np.zeros((3, 8), np.float32)}), ["no labels"]),
        (dict(model=3), ["model is of type int"]),
        (dict(model="nowhere.safetensors"), ["nowhere.safetensors"]),
        (dict(device="tpu"), ["device", "tpu", "cuda"]),
    ],
)
def test_what_means_nothing_is_refused(files, points, change, words):
    given = dict(QUICK, model=files / "model", data=points[0], forget=[0, 1, 2], val=points[1]) | change
    with pytest.raises(scrubjay.ScrubjayError) as caught:
        scrubjay.unlearn(**given)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "--" not in str(caught.value)


def test_measures_against_plain_numbers(files, points):
    """Gradient, product, trace of the network of two layers, in f64 by hand."""
    (x, y), _ = points
    w = {name: values.astype(np.float64) for name, values in weights(points).items()}

    def loss_and_gradient(w):
        a = x @ w["fc1.weight"].T + w["fc1.bias"]
        h = np.maximum(a, 0)
        z = h @ w["fc2.weight"].T + w["fc2.bias"]
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        d = (p - np.eye(3)[y]) / len(x)
        back = (d @ w["fc2.weight"]) * (a > 0)
        g = {"fc1.weight": back.T @ x, "fc1.bias": back.sum(0), "fc2.weight": d.T @ h, "fc2.bias": d.sum(0)}
        return a, z, -np.log(p[np.arange(len(y)), y]), g

    a, z, losses, g = loss_and_gradient(w)
    model = files / "model"
    found = scrubjay.gradient(model, (x, y))
    assert found.keys() == g.keys()
    for name in g:
        assert np.linalg.norm(found[name] - g[name]) <= 1e-6 * np.linalg.norm(g[name]) + 1e-7, name
    trace = scrubjay.traces(model, (x, y))
    assert trace.units[:2] == [("fc1", 0), ("fc1", 1)] and trace.activations.shape == (240, 15)
    assert np.allclose(trace.activations, np.hstack([a, z]), atol=1e-5)
    assert np.allclose(trace.logits, z, atol=1e-5) and np.allclose(trace.losses, losses, atol=1e-5)
    copies = scrubjay.traces(model, (x[:4], y[:4]), copies=7, sigma=0.2, seed=3)
    assert copies.activations.shape == (7, 15) and copies.logits.size == 0
    rng = np.random.default_rng(5)
    v = {name: rng.normal(size=values.shape) for name, values in w.items()}
    step = 1e-5
    up, down = ({n: w[n] + s * step * v[n] for n in w} for s in (1, -1))
    difference = {n: (loss_and_gradient(up)[3][n] - loss_and_gradient(down)[3][n]) / (2 * step) for n in w}
    product = scrubjay.hvp(model, (x, y), v)
    for name in g:
        assert np.linalg.norm(product[name] - difference[name]) <= 1e-4 * np.linalg.norm(difference[name]), name
    # Of one layer, and several at once: the block's own product.
    part = {"fc2.bias": v["fc2.bias"]}
    alone, zero = scrubjay.hvp(model, (x, y), [part, {"fc2.bias": np.zeros(3)}])
    assert alone.keys() == part.keys() and not zero["fc2.bias"].any()
    # A solve undoes a product, on a layer and on all of them.
    for b, damping in [({"fc2.weight": v["fc2.weight"], "fc2.bias": v["fc2.bias"]}, 0.1), (None, 0.5)]:
        step = scrubjay.solve(model, (x, y), b, kind="ggn", damping=damping)
        back = scrubjay.hvp(model, (x, y), step.x, kind="ggn")
        right = found if b is None else b
        for name in right:
            off = back[name] + damping * step.x[name] - right[name]
            assert np.linalg.norm(off) <= 1e-4 * np.linalg.norm(right[name]) + 1e-7, name
        assert step.report["converged"] and step.report["products"] > 1 and step.report["damping"] == damping
    assert scrubjay.solve(model, (x, y), names=["fc2.bias"], damping=1.0, products=1).x.keys() == {"fc2.bias", "fc2.weight"}
    for wrong in (dict(damping=-1.0), dict(tolerance=np.nan), dict(b=[1]), dict(b=part, names=["fc2.bias"]), dict(kind="newton")):
        with pytest.raises(scrubjay.ConfigError):
            scrubjay.solve(model, (x, y), **wrong)
    with pytest.raises(scrubjay.ConfigError, match="`fc9.bias`"):
        scrubjay.hvp(model, (x, y), {"fc9.bias": np.zeros(3)})
    with pytest.raises(scrubjay.ConfigError, match="shape .4., the parameter has .3."):
        scrubjay.hvp(model, (x, y), {"fc2.bias": np.zeros(4)})


def test_verify_tells_what_is_remembered(files, points, program, tmp_path):
    (x, y), _ = points
    write_safetensors(tmp_path / "test.safetensors", {"x": points[1][0], "y": points[1][1].astype(np.int64)})
    others = []
    for seed in (1, 2, 3):
        others.append(tmp_path / f"r{seed}")
        others[-1].mkdir()
        write_safetensors(others[-1] / "model.safetensors", weights(((x[20:], y[20:]), None), seed))
        (others[-1] / "config.json").write_text('{"input_size": [8, 1, 1]}')
    after = scrubjay.unlearn(files / "model", points[0], range(20), val=points[1], **QUICK)
    found = scrubjay.verify(files / "model", after, others, points[0], range(20), points[1])
    after.save(tmp_path / "after")
    printed = program(
        "verify", "--before", files / "model", "--after", tmp_path / "after", "--reference", *others, "--data",
        files / "train.safetensors", "--forget", "0-19", "--test", tmp_path / "test.safetensors", "--json",
    )
    printed = json.loads(printed)
    assert printed["after"]["measures"] == found.after and printed["findings"] == found.findings
    assert [one["measures"] for one in printed["references"]] == found.references
    assert "forget_accuracy" in str(found)
    found.save_report(tmp_path / "memory.html")
    assert "Is it forgotten?" in (tmp_path / "memory.html").read_text() and "SHA-256" not in (tmp_path / "memory.html").read_text()
    assert found.report["before"]["path"] is None and found.forget == list(range(20)) and found.samples[3]["label"] == int(y[3])
    # Of files: the report of the program, and its page.
    paths = [files / "train.safetensors", range(20), tmp_path / "test.safetensors"]
    of_files = scrubjay.verify(files / "model", tmp_path / "after", others, *paths)
    mine, theirs = ({**one, "command": None, "seconds": 0, "device": None} for one in (of_files.report, printed))
    assert theirs["sets"]["forget"].pop("spec") == "0-19" and mine["sets"]["forget"].pop("spec") is None  # by index
    assert mine == theirs and of_files.after == found.after
    of_files.save_report(tmp_path / "files.html")
    assert str(tmp_path / "after") in (tmp_path / "files.html").read_text()
    mask = np.arange(240) < 20
    assert scrubjay.verify(files / "model", tmp_path / "after", others, paths[0], mask, paths[2]).after == found.after
    with pytest.raises(scrubjay.ConfigError, match="sample 240 of a set of 240"):
        scrubjay.verify(files / "model", tmp_path / "after", others, paths[0], [240], paths[2])
    with pytest.raises(scrubjay.ConfigError, match="byte for byte another reference"):
        scrubjay.verify(files / "model", tmp_path / "after", [others[0], others[0]], *paths)
    with pytest.raises(scrubjay.ConfigError, match="reference 1 has the parameters of another reference"):
        scrubjay.verify(files / "model", after, [others[0], others[0]], points[0], range(20), points[1])


def test_pages_show_samples_or_not(files, points, tmp_path):
    given = dict(QUICK, perturbations=20)
    planned = {name: value for name, value in given.items() if name != "progress"}
    for thumbnails in (True, False):
        outcome = scrubjay.unlearn(files / "model", points[0], range(20), val=points[1], thumbnails=thumbnails, **given)
        outcome.save_report(tmp_path / "page.html")
        scrubjay.estimate(
            files / "model", files / "train.safetensors", "0-19", val=files / "val.safetensors", page=tmp_path / "plan.html",
            thumbnails=thumbnails, **planned,
        )
        for page in ("page.html", "plan.html"):
            assert ("<h2>The samples" in (tmp_path / page).read_text()) == thumbnails
    assert "20 samples to be removed" in (tmp_path / "plan.html").read_text()


def test_deltas_go_forth_and_back_and_models_become_graphs(files, tmp_path):
    paths = dict(val=files / "val.safetensors", out=tmp_path / "out", delta_file="both")
    scrubjay.unlearn(files / "model", files / "train.safetensors", "0-19", **paths, **QUICK)
    delta = tmp_path / "out/delta.safetensors"
    (applied, *_) = scrubjay.apply_delta(files / "model", delta, tmp_path / "applied")
    assert Path(applied).read_bytes() == (tmp_path / "out/model.safetensors").read_bytes()
    (before, *_) = scrubjay.revert_delta(tmp_path / "applied", delta, tmp_path / "reverted")
    assert Path(before).read_bytes() == (files / "model/model.safetensors").read_bytes()
    with pytest.raises(scrubjay.ModelError):
        scrubjay.apply_delta(tmp_path / "applied", delta, tmp_path / "again")
    with pytest.raises(scrubjay.ConfigError, match="folder of the model"):
        scrubjay.apply_delta(files / "model", delta, files / "model")
    written = scrubjay.export(files / "model", tmp_path / "graph")
    assert [Path(path).name for path in written] == ["model.safetensors", "config.json"]
    assert json.loads(Path(written[1]).read_text())["architecture"] == "graph"
    data = files / "train.safetensors"
    assert np.array_equal(scrubjay.traces(tmp_path / "graph", data).logits, scrubjay.traces(files / "model", data).logits)
    with pytest.raises(scrubjay.ConfigError, match="is there already"):
        scrubjay.export(files / "model", tmp_path / "graph")
    with pytest.raises(scrubjay.ConfigError, match="unknown argument `seed`"):
        scrubjay.export(files / "model", tmp_path / "other", seed=1)
