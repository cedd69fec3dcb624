"""Texts in memory as token ids, by the tokenizer beside a model or by one that is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import _native
from ._data import array, is_path, parts
from ._errors import ConfigError, DataError
from ._models import inner
from ._options import as_json
from ._progress import log


def tokenised(sets: dict[str, Any], model: Any, reading: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sets of data, of which those in memory are inputs and labels, with token ids in the place of texts; and how files are read.

    All sets of texts are padded to one length, since one network reads them.
    """
    given = reading.get("tokenizer")
    how = {name: value for name, value in reading.items() if name != "tokenizer" or is_path(value)}
    if given is not None and not is_path(given) and not callable(given):
        raise ConfigError(f"tokenizer is of type {type(given).__name__}: a path or a tokenizer of transformers was expected")
    read = {}
    for what, data in sets.items():
        read[what] = data if data is None or is_path(data) else pair(data, model, given, how, what)
    ids = [data[0] for data in read.values() if isinstance(data, tuple) and isinstance(data[0], dict)]
    longest = max((words.shape[1] for one in ids for words in one.values()), default=0)
    for one in ids:
        for name, words in one.items():
            one[name] = np.pad(words, ((0, 0), (0, longest - words.shape[1])))
    return read, how


def pair(data: Any, model: Any, given: Any, how: dict[str, Any], what: str) -> tuple[Any, Any]:
    """The inputs and labels of data in memory; of texts token ids and mask."""
    try:
        x, y = parts(data)
        if isinstance(x, Mapping):
            words = {name: array(values) for name, values in x.items()}
            shapes = {one.shape for one in words.values()}
            return (words if len(shapes) == 1 and len(shapes.pop()) == 2 else x), y  # other shapes are refused later
        texts = texts_of(x)
        return (x if texts is None else encoded(texts, model, given, how, what)), y
    except (ConfigError, DataError) as error:
        raise type(error)(f"{what}: {error}") from None


def texts_of(x: Any) -> list[str] | None:
    """Inputs that are texts."""
    if not isinstance(x, (list, tuple)):
        if hasattr(x, "detach") or getattr(getattr(x, "dtype", None), "kind", "") not in ("O", "U", "T"):
            return None
        x = np.asarray(x).ravel().tolist()
    if not len(x) or not isinstance(x[0], str):
        return None
    wrong = next((i for i, text in enumerate(x) if not isinstance(text, str)), None)
    if wrong is not None:
        raise DataError(f"sample {wrong} is of type {type(x[wrong]).__name__}, where a text was expected")
    return list(x)


def encoded(texts: list[str], model: Any, given: Any, how: dict[str, Any], what: str) -> dict[str, Any]:
    """The token ids and mask of texts."""
    positions = getattr(getattr(inner(model), "config", None), "max_position_embeddings", None)
    if callable(given):  # of transformers
        most = min(given.model_max_length, *(most for most in (how.get("max_tokens"), positions) if most))
        rows = given(texts, padding=True, truncation=True, max_length=most)
        return {name: np.asarray(rows[name]) for name in ("input_ids", "attention_mask")}
    if is_path(model):
        ids, mask, tokens, notes = _native.Model.open(model, as_json(how)).encode(texts, as_json(how))
    elif given is None:
        raise DataError(
            "the inputs are texts, and beside a model in memory there is no tokenizer; tokenizer is the path of one, or one of "
            "transformers"
        )
    else:
        ids, mask, tokens, notes = _native.encode(texts, as_json(how), positions)
    for note in notes:
        log.info("%s: %s", what, note)
    rows = (np.frombuffer(words, dtype=np.uint32).reshape(-1, tokens) for words in (ids, mask))
    return dict(zip(("input_ids", "attention_mask"), rows))
