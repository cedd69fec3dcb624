"""FOCI as a feature selector of scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np

try:
    from sklearn.base import BaseEstimator
    from sklearn.feature_selection import SelectorMixin
    from sklearn.utils.multiclass import type_of_target
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:  # pragma: no cover
    raise ImportError("scrubjay.sklearn needs scikit-learn 1.6 or later: pip install 'scrubjay[sklearn]'") from error

from ._codec import Standardize, Ties, foci


class FociSelector(SelectorMixin, BaseEstimator):
    """Keeps the columns on which the target depends, chosen one after the other by FOCI.

    It needs no model and no linearity, finds columns that tell something only together, and stops by itself.

    Args:
        max_features: stop at this many columns; by default where no column tells more.
        standardize: ``none``, ``scale`` or ``bounded``: how columns are scaled first. Distances are Euclidean, so that units
            matter.
        ties: ``mean``, ``first`` or ``random``: what counts where several rows are equally near.
        noise: the deviation of normal noise that is added to every column first.
        random_state: the seed of the noise and of random ties.
        device: ``auto``, ``cpu``, ``cuda``, or GPUs by number: ``cuda:1``, or ``cuda:0,1`` for two that share the work.
        n_jobs: host threads; None means one per core.

    Attributes:
        order_: the chosen columns, best first.
        scores_: T(Y, columns so far), by step.
        first_step_: T(Y, column) of every column.
        stopped_: why the selection ended.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> from scrubjay.sklearn import FociSelector
        >>> x, y = load_iris(return_X_y=True)
        >>> FociSelector(max_features=2).fit(x, y).get_support(indices=True)
        array([2, 3])
    """

    def __init__(
        self,
        max_features: int | None = None,
        *,
        standardize: Standardize = "none",
        ties: Ties = "mean",
        noise: float = 0.0,
        random_state: int = 0,
        device: str = "auto",
        n_jobs: int | None = None,
    ) -> None:
        self.max_features = max_features
        self.standardize = standardize
        self.ties = ties
        self.noise = noise
        self.random_state = random_state
        self.device = device
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any) -> FociSelector:
        """Chooses columns of X ``[n, p]`` for y ``[n]``, numbers or classes (their order does not matter where there are two)."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2, multi_output=False)
        if type_of_target(y) in ("binary", "multiclass"):
            _, y = np.unique(y, return_inverse=True)
        found = foci(
            X,
            np.asarray(y, dtype=np.float64),
            max_features=self.max_features,
            standardize=self.standardize,
            ties=self.ties,
            noise=self.noise,
            seed=self.random_state,
            device=self.device,
            threads=max(self.n_jobs or 0, 0),
        )
        self.order_ = np.array(found.order, dtype=np.intp)
        self.scores_ = np.array(found.cumulative, dtype=np.float64)
        self.first_step_ = np.array([found.first_step.get(str(j), np.nan) for j in range(X.shape[1])])
        self.stopped_ = found.stopped
        return self

    def _get_support_mask(self) -> np.ndarray:
        check_is_fitted(self, "order_")
        mask = np.zeros(self.n_features_in_, dtype=bool)
        mask[self.order_] = True
        return mask

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags
