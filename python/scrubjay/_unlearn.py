"""Unlearning: a model and its data in, the model without some samples out."""

from __future__ import annotations

import json
import os
from typing import Any, Unpack

from . import _native
from ._data import Samples, indices, is_path, labels_of, of_labels
from ._device import opened
from ._errors import ConfigError, DataError, Interrupted
from ._models import as_model
from ._options import Options, as_json, split
from ._progress import Teller, log
from ._texts import tokenised
from ._weights import Weights, write


class Outcome(Weights):
    """What a request came to.

    Attributes:
        report: the report of ``scrubjay scrub`` as a dictionary (docs/REPORT.md): options, records, layers, notes.
        removed: how many samples were removed.
        not_removed: how many were not; ``notes`` say why.
        interrupted: whether Ctrl-C ended it, so that later batches were not looked at.
        folder: the folder it was written to; None in memory.
    """

    def __init__(self, native: _native.Outcome) -> None:
        self.report: dict[str, Any] = json.loads(native.report)
        self.removed: int = self.report["removed"]
        self.not_removed: int = self.report["not_removed"]
        self.interrupted = native.interrupted
        self.folder = native.folder
        self._after = native.model
        self._page = native.page

    @property
    def _model(self) -> _native.Model:
        if self._after is None:
            raise ConfigError(f"the run had been finished before; the model lies in {self.folder}")
        return self._after

    @property
    def records(self) -> list[dict[str, Any]]:
        """What became of each batch."""
        return self.report["records"]

    @property
    def notes(self) -> list[str]:
        """What to know of the request and of each batch."""
        return [*self.report["notes"], *(note for record in self.records for note in record["notes"])]

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Writes the report as a page of HTML, which has its styles and charts in it: that of ``scrubjay scrub``."""
        write(path, self._page)

    def __repr__(self) -> str:
        more = ", interrupted" if self.interrupted else ""
        return f"<scrubjay.Outcome: {self.removed} samples removed, {self.not_removed} not{more}>"


class _Task:
    """A session and a request, from what Python programs have."""

    def __init__(
        self,
        model: Any,
        data: Any,
        forget: Any,
        forget_label: Any,
        forget_data: Any,
        val: Any,
        earlier: Any,
        config: dict[str, Any] | None,
        device: str,
        threads: int,
        thumbnails: bool,
        options: dict[str, Any],
    ) -> None:
        asked, reading = split(options)
        chosen = [name for name, given in (("forget", forget), ("forget_label", forget_label), ("forget_data", forget_data)) if given is not None]
        if len(chosen) != 1:
            listed = " and ".join(chosen) or "none"
            raise ConfigError(f"one of forget, forget_label and forget_data says what to remove; given: {listed}")
        proxy = asked.get("proxy")
        if proxy is not None and proxy not in ("trained", "neighbours"):
            asked["proxy"] = "given"
        else:
            proxy = None
        where = opened(device, threads)
        files = {"model": model, "data": data, "forget_data": forget_data, "val": val, "earlier": earlier, "proxy": proxy}
        if all(value is None or is_path(value) for value in files.values()):
            if config is not None:
                raise ConfigError("config is for modules; a file has its config.json beside it")
            self.session = _native.Session.open(where, as_json(files), as_json(reading), thumbnails)
        else:
            if forget_data is not None:
                raise ConfigError("forget_data is for models and data in files")
            self.session = in_memory(where, files, reading, config, thumbnails)
        labels = labels_of(self.session)
        if forget_label is not None:
            forget = of_labels(forget_label, labels)
        if forget is not None:
            forget = indices(forget, len(labels), "forget")
        if "retain" in asked:
            asked["retain"] = indices(asked["retain"], len(labels), "retain")
        self.request = _native.Request(self.session, forget, as_json(asked))


def samples(data: Any, model: Any, reading: dict[str, Any], what: str) -> Samples:
    """Samples in memory; those of a file need a model in a file, or what was read of it: its config says how they are normalised."""
    if not is_path(data):
        return Samples.of(data, what)
    if not (is_path(model) or isinstance(model, _native.Model)):
        raise DataError(f"{what} is a path, and the model is not: give both as paths, or the samples as arrays or a data set")
    how = as_json(reading)
    source = _native.Model.open(model, how) if is_path(model) else model
    read, notes = Samples.load(data, source, how)
    for note in notes:
        log.info("%s", note)
    return read


def in_memory(
    device: _native.Device,
    files: dict[str, Any],
    reading: dict[str, Any],
    config: dict[str, Any] | None,
    thumbnails: bool,
) -> _native.Session:
    """A session of values in memory."""
    model = files["model"]
    sets, reading = tokenised({name: files[name] for name in ("data", "val")}, model, reading)
    train = samples(sets["data"], model, reading, "data")
    read = as_model(model, reading, train, config)
    val = None if sets["val"] is None else samples(sets["val"], read if is_path(model) else model, reading, "val")
    for note in read.notes:
        log.info("%s", note)
    others = {
        name: None if files[name] is None else as_model(files[name], reading, train, config, name) for name in ("earlier", "proxy")
    }
    seen = None if val is None else val.native
    return _native.Session.of(device, read, train.native, thumbnails, seen, others["earlier"], others["proxy"])


def unlearn(
    model: Any,
    data: Any,
    forget: Any = None,
    *,
    forget_label: Any = None,
    forget_data: Any = None,
    val: Any = None,
    earlier: Any = None,
    config: dict[str, Any] | None = None,
    out: str | os.PathLike[str] | None = None,
    progress: Any = True,
    thumbnails: bool = True,
    device: str = "auto",
    threads: int = 0,
    **options: Unpack[Options],
) -> Outcome:
    """Removes training samples from a model without retraining it.

    Args:
        model: a path, as ``scrubjay scrub --model`` takes it; or a module: of Hugging Face, of timm, or any other one
            whose trace consists of layers that scrubjay has (docs/PYTHON.md lists them). A module is not changed:
            see :meth:`Outcome.apply`.
        data: the training data: a pair of inputs and labels (arrays or tensors), a mapping with ``x`` and ``y`` or with
            ``input_ids``, ``attention_mask`` and ``labels``, a ``Dataset``, a ``DataLoader`` (its data set, in the set's own
            order), or a path. Inputs are the values that the model takes: ``[n, c, h, w]`` or ``[n, features]``, normalised;
            or texts, a list of ``str``, with the tokenizer beside the model or ``tokenizer``, a path or one of transformers.
        forget: the samples to remove: indices, a mask of truth values, or words as ``7,12,100-149``, ``class:3``, ``n:20@1``.
        forget_label: in its place a label, all samples of which are removed, or a list of labels.
        forget_data: in its place a set of their own beside the data (a path; with models and data in files).
        val: validation data, for calibration and the gate, as ``data``.
        earlier: the model of an earlier epoch, for ``curvature="fd"``.
        config: what a config.json would say about a module, beside what it says itself.
        out: a folder to carry the request out in: with the model, report and records of ``scrubjay scrub``, and going on where
            an earlier call was broken off. Model and data are then paths.
        progress: a bar of tqdm where it is installed; False for none, or a function that gets (batches done, batches, phase).
        thumbnails: whether the page of the report shows the samples, as small pictures or by their first words, with the models'
            answers.
        device: ``auto``, ``cpu``, ``cuda``, or GPUs by number: ``cuda:1``, or ``cuda:0,1`` for two that share the work.
        threads: host threads; 0 means one per core.
        **options: those of ``scrubjay scrub``, with underscores: see :class:`scrubjay.Options`. ``gate`` is a share; ``proxy``
            may also be a model; ``retain`` is a choice as ``forget``. Those that say how data are read are for files.

    Raises:
        UnsupportedModel: where a module has a part that scrubjay lacks; it names the part and its place.
        Interrupted: on Ctrl-C; its ``result`` is the outcome of the batches that were done.
        ScrubjayError: for anything else that is refused or fails.

    Example:
        >>> import numpy as np, scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> _ = torch.manual_seed(0)
        >>> net = torch.nn.Sequential(torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 10))
        >>> outcome = scrubjay.unlearn(
        ...     net, (x[:600], y[:600]), range(20), val=(x[600:900], y[600:900]), method="lcodec", selection="random",
        ...     max_units=2, despite=["near-chance"], progress=False,  # it is not trained
        ... )
        >>> outcome.removed + outcome.not_removed
        20
        >>> net = outcome.apply(net)
    """
    task = _Task(model, data, forget, forget_label, forget_data, val, earlier, config, device, threads, thumbnails, dict(options))
    with Teller(progress) as teller:
        if out is None:
            outcome = Outcome(task.request.scrub(teller))
        else:
            outcome = Outcome(task.request.run(out, teller))
    if outcome.interrupted:
        raise Interrupted(f"interrupted; `result` has the batches that were done: {outcome!r}", outcome)
    return outcome


def estimate(
    model: Any,
    data: Any,
    forget: Any = None,
    *,
    forget_label: Any = None,
    forget_data: Any = None,
    val: Any = None,
    earlier: Any = None,
    config: dict[str, Any] | None = None,
    page: str | os.PathLike[str] | None = None,
    thumbnails: bool = True,
    device: str = "auto",
    threads: int = 0,
    **options: Unpack[Options],
) -> dict[str, Any]:
    """What :func:`unlearn` would take with the same arguments: samples, batches, units, bytes, and seconds at most.

    ``page`` is a file that gets the plan as a page of HTML, with the samples and what speaks against the request: that of
    ``scrubjay scrub --dry-run --html``. For it the model is measured on all retained and validation samples, and a request that
    :func:`unlearn` would refuse is refused.

    Example:
        >>> import scrubjay, torch
        >>> x, y = scrubjay.digits()
        >>> plan = scrubjay.estimate(torch.nn.Linear(64, 10), (x[:600], y[:600]), range(20), val=(x[600:900], y[600:900]))
        >>> plan["samples"], plan["units"]
        (20, 10)
    """
    task = _Task(model, data, forget, forget_label, forget_data, val, earlier, config, device, threads, thumbnails, dict(options))
    if page is None:
        return json.loads(task.request.estimate())
    plan, text = task.request.planned()
    write(page, text)
    return json.loads(plan)

