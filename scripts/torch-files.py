"""Small files of torch.save for the tests: scripts/torch-files.py [check FOLDER]

Writes to tests/data/torch one file for each form that such files come in, and `expected.safetensors` with their values
as f64, each tensor named FILE/NAME. With `check`, loads every file of FOLDER as PyTorch does (weights_only, strict) and
prints its values as JSON.
"""

import argparse
import io
import json
import random
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file
from torch import nn

TARGET = Path(__file__).parent.parent / "tests/data/torch"


def model():
    return nn.Sequential(OrderedDict(fc1=nn.Linear(4, 3), act=nn.ReLU(), fc2=nn.Linear(3, 2)))


def state(dtype=torch.float32):
    """Values that every type holds exactly."""
    count = iter(range(-9, 1000))
    return OrderedDict(
        (name, torch.tensor([next(count) / 8 for _ in range(value.numel())], dtype=dtype).reshape(value.shape))
        for name, value in model().state_dict().items()
    )


class Unknown(nn.Linear):
    """A model that only this script can read."""


def files():
    plain, made = state(), model()
    made.load_state_dict(plain)
    optimizer = torch.optim.Adam(made.parameters())
    made(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    made.load_state_dict(plain)
    wrapped = OrderedDict(("module." + name, value) for name, value in plain.items())
    yield "zip.pth", plain, {}
    yield "older.pth", plain, {"_use_new_zipfile_serialization": False}
    yield "protocol4.pt", plain, {"pickle_protocol": 4}
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        yield f"{str(dtype)[6:]}.bin", state(dtype), {}
    yield "parameters.pt", OrderedDict(made.named_parameters()), {}
    training = {
        "epoch": 3,
        "arch": "mlp",
        "state_dict": wrapped,
        "best_acc1": numpy.float64(71.5),
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, data="imagenet"),
        "rng": torch.get_rng_state(),
        "losses": [0.5, 0.25, numpy.float32(0.125)],
        "history": numpy.arange(3),
        "best_loss": torch.tensor(0.25),
    }
    yield "training.pth.tar", training, {}
    yield "training-older.pth.tar", training, {"_use_new_zipfile_serialization": False}
    yield "two.pth", {"model": plain, "ema": {"decay": 0.99, "shadow": {k: v + 1 for k, v in plain.items()}}}, {}
    # Weights as columns, in part, of one memory.
    memory = torch.arange(64, dtype=torch.float32) / 4
    memory[::5] = -1.5
    views = OrderedDict(plain)
    views["fc1.weight"] = memory[:24].reshape(4, 6)[:, 1:4].t()
    views["fc2.weight"] = memory[30:48].reshape(2, 9)[:, ::3]
    views["fc1.bias"] = memory[50:53]
    yield "views.pth", views, {}
    yield "views-older.pth", views, {"_use_new_zipfile_serialization": False}
    yield "shard1.bin", OrderedDict(list(plain.items())[:2]), {}
    yield "shard2.bin", OrderedDict(list(plain.items())[2:]), {}
    tied = OrderedDict(plain)
    tied["fc2.bias"] = tied["fc1.bias"][1:]
    yield "tied.pth", tied, {}


def scripted():
    """A TorchScript program of some 2 KB, without the sources beside it."""
    data = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), data)
    return data.getvalue()


def main():
    torch.manual_seed(0)
    random.seed(0)
    TARGET.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, saved, options in files():
        torch.save(saved, TARGET / name, **options)
        weights = saved.get("state_dict") or saved.get("model") or saved
        for key, value in weights.items():
            expected[f"{name}/{key}"] = value.detach().double().contiguous().clone()
    save_file(expected, TARGET / "expected.safetensors")
    torch.save(Unknown(2, 2), TARGET / "module.pth")
    torch.save({"epoch": 1, "model": Unknown(2, 2)}, TARGET / "module-inside.pth")
    torch.save(Unknown(2, 2), TARGET / "module-older.pth", _use_new_zipfile_serialization=False)
    (TARGET / "script.pt").write_bytes(scripted())
    with zipfile.ZipFile(TARGET / "zip.pth") as stored, zipfile.ZipFile(TARGET / "compressed.pth", "w", zipfile.ZIP_DEFLATED) as out:
        for entry in stored.namelist():
            out.writestr(zipfile.ZipInfo(entry), stored.read(entry), zipfile.ZIP_DEFLATED)


def check(folder):
    values = {}
    for path in sorted(folder.iterdir()):
        assert zipfile.is_zipfile(path) is False or zipfile.ZipFile(path).testzip() is None, f"{path}: a wrong CRC-32"
        allowed = [argparse.Namespace, numpy.dtype, numpy.dtypes.Float64DType, numpy.dtypes.Float32DType,
                   numpy.dtypes.Int64DType, numpy.ndarray, numpy._core.multiarray.scalar,
                   numpy._core.multiarray._reconstruct]
        with torch.serialization.safe_globals(allowed):
            saved = torch.load(path, map_location="cpu", weights_only=True)
        weights = saved.get("state_dict") or saved.get("model") or saved
        weights = {name.removeprefix("module."): value for name, value in weights.items()}
        made = model().double()
        made.load_state_dict(weights, strict=True)
        values[path.name] = {name: value.flatten().tolist() for name, value in made.state_dict().items()}
    print(json.dumps(values))


if __name__ == "__main__":
    check(Path(sys.argv[2])) if sys.argv[1:2] == ["check"] else main()
