"""The selector, by scikit-learn's own checks."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks

import scrubjay
from scrubjay.sklearn import FociSelector


@parametrize_with_checks([FociSelector(n_jobs=1), FociSelector(max_features=1, n_jobs=1)])
def test_estimator(estimator, check):
    check(estimator)


def test_it_selects_what_foci_selects():
    x, y = load_iris(return_X_y=True)
    fitted = FociSelector().fit(x, y)
    found = scrubjay.foci(x, y)
    assert list(fitted.order_) == found.order and fitted.stopped_ == found.stopped
    assert np.array_equal(fitted.transform(x), x[:, sorted(found.order)])
    assert fitted.first_step_.argmax() == found.order[0]


def test_it_stands_in_a_pipeline():
    x, y = load_iris(as_frame=True, return_X_y=True)
    pipe = make_pipeline(FociSelector(max_features=2), LogisticRegression(max_iter=500)).fit(x, y)
    assert pipe.score(x, y) > 0.9
    assert list(pipe[0].get_feature_names_out()) == ["petal length (cm)", "petal width (cm)"]
