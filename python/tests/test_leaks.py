"""A thousand calls keep no memory."""

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

import scrubjay
from scrubjay import _native
from scrubjay._data import Samples
from scrubjay._device import opened


def resident():
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="/proc is not there")
def test_a_thousand_calls_keep_no_memory():
    rng = np.random.default_rng(0)
    table, y = rng.normal(size=(60, 4)), rng.normal(size=60)
    x, labels = rng.normal(size=(2000, 64)).astype(np.float32), rng.integers(0, 3, 2000)  # half a megabyte
    v = {"weight": np.ones((3, 64))}
    samples = Samples.of((x, labels))
    tensors = [("weight", "F32", [3, 64], bytes(768)), ("bias", "F32", [3], bytes(12))]
    model = _native.Model.of_tensors(tensors, None, "{}", samples.native)

    def call():
        scrubjay.codec(y, table, permutations=3, threads=1)
        scrubjay.foci(table, y, threads=1)
        scrubjay.traces(model, (x, labels), threads=1)
        scrubjay.hvp(model, (x[:50], labels[:50]), v, threads=1)
        _native.Request(_native.Session.of(opened("cpu", 1), model, samples.native), [0], "{}")
        with pytest.raises(scrubjay.ScrubjayError):
            scrubjay.codec(y, table, standardize="no")

    for _ in range(50):
        call()
    gc.collect()
    before = resident()
    for _ in range(1000):
        call()
    gc.collect()
    assert resident() - before < 8 << 20, (before, resident())
