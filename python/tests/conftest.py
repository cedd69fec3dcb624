"""What tests share."""

import os
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import scrubjay

try:
    import torch

    torch.set_num_threads(1)  # small networks; threads that wait for each other cost more
except ImportError:
    pass

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts its background jobs with Ctrl-C ignored


@pytest.fixture(scope="session")
def program():
    """The command line program, to compare with."""
    path = os.environ.get("SCRUBJAY_PROGRAM")
    if not path:
        pytest.skip("SCRUBJAY_PROGRAM, the path of the program to compare with, is not set")

    def run(*words, check=True):
        done = subprocess.run([path, *map(str, words)], capture_output=True, text=True)
        assert not check or done.returncode in (0, 3), done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def points():
    """Three classes of points in eight dimensions: 240 to train on, 90 to validate."""
    rng = np.random.default_rng(0)
    y = np.arange(330) % 3
    x = (rng.normal(size=(330, 8)) + 1.2 * np.cos(2 * y[:, None] + np.arange(8))).astype(np.float32)
    return (x[:240], y[:240]), (x[240:], y[240:])


@pytest.fixture(scope="session")
def digits():
    """Digits to train on, to validate and to test."""
    x, y = scrubjay.digits()
    order = np.random.default_rng(1).permutation(len(x))
    x, y = x[order], y[order]
    return (x[:600], y[:600]), (x[600:900], y[600:900]), (x[900:], y[900:])


def train(torch, module, x, y, epochs=40, rate=0.1, seed=0):
    """Trains a module in place, by plain SGD."""
    torch.manual_seed(seed)
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    optimizer = torch.optim.SGD(module.parameters(), lr=rate, momentum=0.9)
    module.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x[batch]), y[batch]).backward()
            optimizer.step()
    return module.eval()


def write_safetensors(path, tensors):
    """A safetensors file of arrays."""
    import json
    import struct

    kinds = {"float32": "F32", "int64": "I64"}
    header, data = {}, b""
    for name, values in tensors.items():
        part = np.ascontiguousarray(values).tobytes()
        header[name] = {"dtype": kinds[str(values.dtype)], "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)
