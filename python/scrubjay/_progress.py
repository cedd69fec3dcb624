"""Progress and messages of a run."""

from __future__ import annotations

import logging
import warnings
from typing import Any

from ._errors import ScrubjayWarning

log = logging.getLogger("scrubjay")


class Teller:
    """Passes on what a run tells: progress to a bar of tqdm (where it is installed) or a function, messages to ``warnings`` and
    to the logger ``scrubjay``."""

    def __init__(self, progress: Any) -> None:
        self.call = progress if callable(progress) else None
        self.shown = progress is True
        self.bar: Any = None

    def __call__(self, kind: str, *rest: Any) -> None:
        if kind == "warning":
            warnings.warn(rest[0], ScrubjayWarning, stacklevel=3)  # where unlearn was called
        elif kind == "info":
            log.info("%s", rest[0])
        elif self.call is not None:
            self.call(*rest)
        elif self.shown:
            self.show(*rest)

    def show(self, done: int, batches: int, phase: str | None) -> None:
        """Moves the bar."""
        if self.bar is None:
            try:
                from tqdm.auto import tqdm
            except ImportError:
                self.shown = False
                return
            self.bar = tqdm(total=batches, unit="batch", desc="scrubjay")
        self.bar.update(done - self.bar.n)
        self.bar.set_postfix_str(phase or "")

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.bar is not None:
            self.bar.close()
