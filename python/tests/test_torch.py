"""Modules of PyTorch: what they are taken for, and what comes back."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import scrubjay
from conftest import train, write_safetensors
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

QUICK = dict(method="lcodec", perturbations=30, products=4, stages=1, gate=1.0, progress=False, device="cpu", threads=2)


def mlp():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Dropout(0.3), nn.Linear(12, 3))


class Functional(nn.Module):
    """A small network that is written with functions."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 6, (3, 3), stride=2, groups=2, bias=False)
        self.out = nn.Linear(6, 10)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.norm(self.one(x))), 2)
        x = nn.functional.gelu(self.two(x), approximate="tanh")
        x = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return self.out(x.view(x.size(0), -1))


def images(digits, n=300):
    (x, y), *_ = digits
    return x[:n].reshape(n, 1, 8, 8), y[:n]


@pytest.fixture(scope="module")
def trained(points):
    return train(torch, mlp(), *points[0])


def test_new_weights_come_back_into_the_module(trained, points):
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    outcome = scrubjay.unlearn(trained, points[0], range(20), val=points[1], **QUICK)
    assert outcome.removed == 20, outcome.notes
    assert all(torch.equal(tensor, before[name]) for name, tensor in trained.state_dict().items())
    new = outcome.state_dict()
    assert list(sorted(new)) == sorted(before) and all(new[name].dtype == before[name].dtype for name in new)
    other = mlp()
    assert outcome.apply(other) is other
    changed = sum(int((new[name] != before[name]).sum()) for name in new)
    assert changed == outcome.report["records"][0]["account"]["parameters"] > 0
    assert all(torch.equal(tensor, new[name]) for name, tensor in other.state_dict().items())
    with torch.no_grad():
        loss = nn.functional.cross_entropy(other.eval()(torch.as_tensor(points[0][0][:20])), torch.as_tensor(points[0][1][:20]))
    assert abs(float(loss) - outcome.records[0]["account"]["after"]["forget"]["loss"]) < 1e-5
    with pytest.raises(scrubjay.ConfigError, match="it is another one"):
        outcome.apply(nn.Linear(8, 12))


def test_forms_of_data_give_the_same_bytes(trained, points):
    (x, y), (vx, vy) = points

    class Items(Dataset):
        def __len__(self):
            return len(x)

        def __getitem__(self, i):
            return torch.from_numpy(x[i]), int(y[i])

    tensors = (torch.as_tensor(x), torch.as_tensor(y))
    forms = [
        (x.astype(np.float64), list(y)),
        tensors,
        {"x": tensors[0], "labels": tensors[1]},
        TensorDataset(*tensors),
        Items(),
        DataLoader(Items(), batch_size=7, shuffle=True),  # its set, in the set's own order
    ]
    outcomes = [scrubjay.unlearn(trained, data, torch.arange(20), val=(vx, vy), **QUICK) for data in forms]
    first = outcomes[0].state_dict()
    for outcome in outcomes[1:]:
        assert all(torch.equal(tensor, first[name]) for name, tensor in outcome.state_dict().items())


def test_a_module_is_its_own_files(trained, points, tmp_path, program):
    """The module's result is the program's on the same tensors in a file."""
    for name, (x, y) in zip(("train", "val"), points):
        write_safetensors(tmp_path / f"{name}.safetensors", {"x": x, "y": y})
    write_safetensors(tmp_path / "model.safetensors", {name: tensor.numpy() for name, tensor in trained.state_dict().items()})
    layers = [{"linear": "0"}, "relu", {"linear": "3"}]
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "sequential", "input_size": [8, 1, 1], "layers": layers}))
    words = ["--data", tmp_path / "train.safetensors", "--val", tmp_path / "val.safetensors", "--forget", "class:1"]
    words += ["--method", "lcodec", "--perturbations", 30, "--products", 4, "--stages", 1, "--gate", 100, "--device", "cpu", "--threads", 2]
    program("scrub", "--model", tmp_path, *words, "--out", tmp_path / "out")
    outcome = scrubjay.unlearn(trained, points[0], forget_label=1, val=points[1], **QUICK)
    outcome.save(tmp_path / "saved")
    new = {name: tensor.numpy().tobytes() for name, tensor in outcome.state_dict().items()}
    from_file = scrubjay.traces(tmp_path / "out", points[1], arch="sequential")
    mine = scrubjay.traces(tmp_path / "saved", points[1])
    assert from_file.logits.tobytes() == mine.logits.tobytes()
    data = (tmp_path / "out/model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    start = 8 + int.from_bytes(data[:8], "little")
    for name, values in new.items():
        a, b = header[name]["data_offsets"]
        assert data[start + a : start + b] == values


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_types_of_tensors_are_kept(trained, points, dtype):
    module = mlp()
    module.load_state_dict(trained.state_dict())
    module.to(dtype)
    outcome = scrubjay.unlearn(module, points[0], range(20), val=points[1], **QUICK)
    new, before = outcome.state_dict(), {name: tensor.clone() for name, tensor in module.state_dict().items()}
    assert outcome.removed == 20 and any(not torch.equal(new[name], before[name]) for name in new)
    outcome.apply(module)
    assert all(tensor.dtype == dtype and torch.equal(tensor, new[name]) for name, tensor in module.state_dict().items())


def test_shared_tensors_and_wrappers(points):
    shared = nn.Linear(8, 8)
    module = nn.Sequential(shared, nn.ReLU(), shared, nn.Tanh(), nn.Linear(8, 3)).eval()
    wrapped = nn.DataParallel(module)
    plain, other = (scrubjay.gradient(m, points[0]) for m in (module, wrapped))
    assert all(np.array_equal(plain[name], other[name]) for name in plain)
    loss = nn.functional.cross_entropy(module(torch.as_tensor(points[0][0])), torch.as_tensor(points[0][1]))
    expected = torch.autograd.grad(loss, shared.weight)[0].numpy()
    assert np.allclose(plain["0.weight"], expected, atol=1e-5)


def test_a_network_of_functions(digits):
    torch.manual_seed(1)
    x, y = images(digits)
    module = Functional()
    module(torch.as_tensor(x))  # moves the running statistics
    module.train()
    found = scrubjay.traces(module, (x[:40], y[:40]))
    assert module.training
    module.eval()
    with torch.no_grad():
        logits = module(torch.as_tensor(x[:40])).numpy()
    assert np.allclose(found.logits, logits, atol=1e-5)
    assert {name for name, _ in found.units} == {"one", "two", "out"}


def test_several_labels(points):
    (x, y), _ = points
    rows = np.stack([y == 0, y >= 1], 1).astype(np.int64)
    module = nn.Sequential(nn.Linear(8, 6), nn.Sigmoid(), nn.Linear(6, 2))
    mine = scrubjay.gradient(module, (x, rows))
    loss = nn.functional.binary_cross_entropy_with_logits(module(torch.as_tensor(x)), torch.as_tensor(rows).float())
    theirs = torch.autograd.grad(loss, list(module.parameters()))  # the mean over labels and samples
    for (name, _), expected in zip(module.named_parameters(), theirs):
        assert np.allclose(mine[name], expected.numpy(), atol=1e-5), name


def test_a_module_with_the_attribute_of_an_outcome_is_a_module(trained, points):
    module = mlp()
    module.load_state_dict(trained.state_dict())
    module._model = "mine"
    mine, plain = scrubjay.gradient(module, points[0]), scrubjay.gradient(trained, points[0])
    assert all(np.array_equal(mine[name], plain[name]) for name in plain)


@pytest.mark.parametrize("what", ["earlier", "proxy"])
def test_a_module_needs_samples_in_memory(trained, points, tmp_path, what):
    write_safetensors(tmp_path / "train.safetensors", {"x": points[0][0], "y": points[0][1]})
    tensors = trained.state_dict()
    named = {new: tensors[old].numpy() for new, old in (("fc1.weight", "0.weight"), ("fc1.bias", "0.bias"), ("fc2.weight", "3.weight"), ("fc2.bias", "3.bias"))}
    write_safetensors(tmp_path / "model.safetensors", named)
    (tmp_path / "config.json").write_text('{"input_size": [8, 1, 1]}')
    with pytest.raises(scrubjay.DataError, match=f"{what}: a module is compared on samples in memory"):
        scrubjay.unlearn(tmp_path, tmp_path / "train.safetensors", range(20), val=points[1], progress=False, **{what: trained})


class Odd(Dataset):
    """Three items, of which a part of the last has another shape."""

    def __init__(self, odd):
        self.odd = odd

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if self.odd == "input_ids":
            return {"input_ids": torch.ones(4 + i // 2, dtype=torch.int64), "labels": 0}
        return torch.zeros(8 + i // 2 * (self.odd == "inputs")), torch.zeros(2 + i // 2 * (self.odd == "labels"))


@pytest.mark.parametrize("odd", ["inputs", "labels", "input_ids"])
def test_items_of_different_shapes_are_refused(trained, odd):
    with pytest.raises(scrubjay.DataError, match=f"data: the {odd} of the data set have different shapes"):
        scrubjay.gradient(trained, Odd(odd))


class Hidden(nn.Module):
    """Has the tensors of an MLP, and computes something else that cannot be traced."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.fc1(x)
        return self.fc2(torch.relu(h) if float(h.sum()) > 1e9 else torch.sin(h))


@pytest.mark.parametrize(
    "module, words, path, kind",
    [
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.PReLU(), nn.Linear(8, 3)), ["`1` (PReLU)"], "1", "PReLU"),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.ELU()), nn.Linear(8, 3)), ["`0.1` (ELU)"], "0.1", "ELU"),
        (lambda: nn.Sequential(nn.Linear(8, 8), nn.Softplus(beta=2), nn.Linear(8, 3)), ["beta=2"], "1", "Softplus"),
        (Hidden, ["computes something else"], "", "Hidden"),
        (lambda: nn.Sequential(nn.Linear(8, 3), nn.Unflatten(1, (3, 1))), ["Unflatten"], "1", "Unflatten"),
        (lambda: nn.Sequential(nn.Linear(9, 3)), [], None, None),
    ],
)
def test_what_is_not_known_is_named(points, module, words, path, kind):
    with pytest.raises(scrubjay.UnsupportedModel) as caught:
        scrubjay.gradient(module(), points[0])
    assert all(word in str(caught.value) for word in words), caught.value
    assert path is None or (caught.value.path, caught.value.kind) == (path, kind), caught.value


def test_verify_of_modules(points, trained):
    train_data, test = points
    after = scrubjay.unlearn(trained, train_data, range(20), val=test, **QUICK)
    others = [train(torch, mlp(), train_data[0][20:], train_data[1][20:], 10, seed=seed) for seed in (1, 2, 3)]
    found = scrubjay.verify(trained, after, others, train_data, range(20), test)
    assert len(found.references) == 3 and len(found.samples) == 20
    with torch.no_grad():
        right = (trained(torch.as_tensor(test[0])).argmax(1).numpy() == test[1]).mean()
    assert found.before["test_accuracy"] == pytest.approx(right)
