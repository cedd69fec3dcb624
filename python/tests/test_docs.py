"""The code of docstrings, of docs/PYTHON.md and of the tutorial runs."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

import scrubjay

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["_codec", "sklearn", "_unlearn", "_measure", "_train", "_inspect"])
def test_docstrings(name):
    if name == "sklearn":
        pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    elif name not in ("_codec", "_train"):
        pytest.importorskip("torch", reason="torch is not installed")
    failed, tried = doctest.testmod(importlib.import_module(f"scrubjay.{name}"))
    assert tried and not failed


@pytest.mark.parametrize("page", ["PYTHON.md", "tutorial/digits.md"])
def test_pages(page, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    text, names = (DOCS / page).read_text(), {}
    blocks = re.findall(r"^```python( plot)?\n(.*?)^```$", text, re.M | re.S)
    assert blocks
    for plot, code in blocks:
        if plot and importlib.util.find_spec("matplotlib") is None:
            continue
        exec(compile(code, page, "exec"), names)


def test_everything_public_is_documented():
    for name in scrubjay.__all__:
        assert getattr(scrubjay, name).__doc__, name
