"""Training: a new model of a description, or one that exists."""

from __future__ import annotations

import json
import os
from typing import Any, Unpack

from . import _native
from ._data import EVERY, indices, is_mask, is_path
from ._device import opened
from ._errors import ConfigError
from ._models import as_model
from ._options import Recipe, as_json, split
from ._progress import log
from ._texts import tokenised
from ._unlearn import samples
from ._weights import Weights


class Trained(Weights):
    """A model that was trained.

    Attributes:
        history: of every epoch ``loss``, ``accuracy``, ``val_loss``, ``val_accuracy`` and ``seconds``.
        folder: the folder it was written to; None in memory.
        manifest: what ``train.json`` there tells; None in memory.
    """

    def __init__(self, native: _native.Trained | None, folder: Any = None, manifest: str | None = None) -> None:
        self._native = native
        self.folder = folder
        self.manifest: dict[str, Any] | None = None if manifest is None else json.loads(manifest)
        self.history: list[dict[str, Any]] = self.manifest["epochs"] if native is None else json.loads(native.epochs)
        self._read: _native.Model | None = None if native is None else native.model

    @property
    def _model(self) -> _native.Model:
        if self._read is None:
            self._read = _native.Model.open(self.folder, "{}")
        return self._read

    def save(self, folder: str | os.PathLike[str]) -> list[str]:
        """Writes the model to a folder: a new one as ``scrubjay train`` does (``model.safetensors``, ``config.json``, the tokenizer
        of texts), one that was given in the layout of its files."""
        if self._native is not None and self._native.save(folder):
            return [os.path.join(os.fspath(folder), name) for name in ("model.safetensors", "config.json")]
        return super().save(folder)

    def __repr__(self) -> str:
        last = self.history[-1]
        return f"<scrubjay.Trained: {len(self.history)} epochs, loss {last['loss']:.4f}, accuracy {last['accuracy']:.4f}>"


class _Epochs:
    """Passes every epoch on: to a bar of tqdm, where it is installed, or a function."""

    def __init__(self, progress: Any, epochs: int) -> None:
        self.call = progress if callable(progress) else None
        self.bar: Any = None
        if progress is True:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                return
            self.bar = tqdm(total=epochs, unit="epoch", desc="scrubjay")

    def __call__(self, text: str) -> None:
        report = json.loads(text)
        if self.call is not None:
            self.call(report)
        elif self.bar is not None:
            self.bar.update(1)
            self.bar.set_postfix(loss=f"{report['loss']:.4f}", accuracy=f"{report['accuracy']:.4f}")

    def __enter__(self) -> _Epochs:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()


def train(
    data: Any,
    *,
    arch: str | None = None,
    model: Any = None,
    val: Any = None,
    exclude: Any = None,
    out: str | os.PathLike[str] | None = None,
    keep_epochs: Any = (),
    config: dict[str, Any] | None = None,
    progress: Any = True,
    device: str = "auto",
    threads: int = 0,
    **options: Unpack[Recipe],
) -> Trained:
    """Trains a model as ``scrubjay train`` does: the same options and seed give the same bytes.

    It makes models that never saw some samples, to compare with (:func:`scrubjay.verify`). PyTorch trains modules faster and in
    more ways.

    Args:
        data: labelled data, as in :func:`scrubjay.unlearn`.
        arch: a new model, as ``mlp:100-50``, ``cnn:8-16-16+64`` or ``resnet20`` (docs/MODELS.md lists all).
        model: in its place a model that exists, a path or a module, which is left as it is: see :meth:`Trained.apply`.
        val: data to report loss and accuracy on after every epoch.
        exclude: samples to leave out: indices, a mask, or words, as ``forget`` in :func:`scrubjay.unlearn`.
        out: a folder that gets what the command writes, ``train.json`` with it. Data and model are then paths. A training
            that was stopped goes on there, one that is finished is kept, and any other is refused.
        keep_epochs: epochs after which the model is also kept, in ``epoch-E`` of ``out``.
        config: as in :func:`scrubjay.unlearn`.
        progress: a bar of tqdm where it is installed; False for none, or a function that gets each epoch as a dictionary.
        device: ``auto``, ``cpu``, ``cuda``, or GPUs by number: ``cuda:1``, or ``cuda:0,1`` for two that share the work.
        threads: host threads; 0 means one per core.
        **options: those of ``scrubjay train``, with underscores: see :class:`scrubjay.Recipe`.

    Raises:
        Interrupted: on Ctrl-C; nothing of the training is kept.
        ScrubjayError: for anything that is refused or fails.

    Example:
        >>> import scrubjay
        >>> x, y = scrubjay.digits()
        >>> trained = scrubjay.train((x[:900], y[:900]), arch="mlp:20", exclude=range(25), epochs=5, lr=0.1, progress=False)
        >>> len(trained.history), trained.history[-1]["accuracy"] > 0.9
        (5, True)
        >>> sorted(trained.state_dict())
        ['fc1.bias', 'fc1.weight', 'fc2.bias', 'fc2.weight']
    """
    asked, reading = split(dict(options))
    if (arch is None) == (model is None):
        raise ConfigError("arch describes a new model, and model is one that exists: one of the two is needed")
    where, files = opened(device, threads), all(one is None or is_path(one) for one in (data, model, val))
    if (out is not None or len(keep_epochs)) and not files:
        raise ConfigError("out and keep_epochs are for data and models in files; Trained.save writes a model")
    if len(keep_epochs) and out is None:
        raise ConfigError("keep_epochs is for out, a folder")
    with _Epochs(progress, asked.get("epochs", 20)) as tell:
        if files:
            if config is not None:
                raise ConfigError("config is for modules; a file has its config.json beside it")
            if is_mask(exclude):
                raise ConfigError("exclude: a mask is for data in memory; give indices or words")
            left = None if exclude is None else indices(exclude, EVERY, "exclude")
            paths = as_json({"model": model, "data": data, "val": val})
            given = (where, paths, as_json(reading), arch, left, as_json(asked), out, [int(epoch) for epoch in keep_epochs], tell)
            native, manifest, notes = _native.train_files(*given)
            for note in notes:
                log.info("%s", note)
            return Trained(native, None if out is None else os.fspath(out), manifest)
        sets, how = tokenised({"data": data, "val": val}, model, reading)
        if model is None and any(is_path(one) for one in sets.values()):
            raise ConfigError("data and val are both paths, or both in memory")
        seen = samples(sets["data"], model, how, "data")
        read = None if model is None else as_model(model, how, seen, config)
        check = None if sets["val"] is None else samples(sets["val"], read if is_path(model) else model, how, "val").native
        left = None if exclude is None else indices(exclude, len(seen), "exclude")
        return Trained(_native.train(where, arch, read, seen.native, check, left, as_json(asked), tell))
