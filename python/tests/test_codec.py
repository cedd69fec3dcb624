"""CODEC and FOCI against plain loops, and against the program."""

import json

import numpy as np
import pytest

import scrubjay

pd = pytest.importorskip("pandas", reason="pandas is not installed")


def plain_t(y, z, x=None):
    """T(Y, Z | X) of distinct rows, as the paper writes it."""
    n = len(y)
    rank = np.array([(y <= v).sum() for v in y])
    upper = np.array([(y >= v).sum() for v in y])

    def nearest(columns):
        gap = ((columns[:, None, :] - columns[None, :, :]) ** 2).sum(2)
        np.fill_diagonal(gap, np.inf)
        return gap.argmin(1)

    if x is None:
        m = nearest(z)
        return (n * np.minimum(rank, rank[m]) - upper**2).sum() / (upper * (n - upper)).sum()
    m, known = nearest(np.hstack([x, z])), nearest(x)
    return (np.minimum(rank, rank[m]) - np.minimum(rank, rank[known])).sum() / (rank - np.minimum(rank, rank[known])).sum()


def table(n=150, p=5, seed=0):
    x = np.random.default_rng(seed).normal(size=(n, p))
    return x, x[:, 3] * np.sign(x[:, 1]) + 0.1 * x[:, 0]


def test_values_are_those_of_a_plain_loop():
    x, y = table()
    assert scrubjay.codec(y, x[:, 3]).value == pytest.approx(plain_t(y, x[:, [3]]), abs=1e-12)
    assert scrubjay.codec(y, x[:, [1, 2]], x[:, 3]).value == pytest.approx(plain_t(y, x[:, [1, 2]], x[:, [3]]), abs=1e-12)
    order = np.argsort(x[:, 3])
    ranks = np.argsort(np.argsort(y[order])) + 1
    xi = 1 - 3 * np.abs(np.diff(ranks)).sum() / (len(y) ** 2 - 1)
    assert scrubjay.codec(y, x[:, 3], measure="xi").value == pytest.approx(xi, abs=1e-12)


def test_foci_is_the_greedy_choice_of_a_plain_loop():
    x, y = table(200, 6, 1)
    chosen, left = [], list(range(6))
    while left:
        values = [plain_t(y, x[:, [j]], x[:, chosen] if chosen else None) for j in left]
        if max(values) <= 0:
            break
        chosen.append(left.pop(int(np.argmax(values))))
    found = scrubjay.foci(x, y)
    assert found.order == chosen and found.stopped in ("not-positive", "exhausted")
    assert found.cumulative[0] == pytest.approx(plain_t(y, x[:, chosen[:1]]), abs=1e-12)
    assert found.first_step["2"] == pytest.approx(plain_t(y, x[:, [2]]), abs=1e-12)


def test_names_of_a_frame_are_taken():
    x, y = table()
    frame = pd.DataFrame(x, columns=list("abcde")).assign(target=y)
    found = scrubjay.foci(frame, "target", max_features=2)
    assert (found.names, found.order, found.stopped) == (["d", "b"], [3, 1], "max-features")
    plain = scrubjay.foci(x, y, max_features=np.int64(2))
    assert found.cumulative == plain.cumulative
    grouped = scrubjay.foci(frame, "target", groups=[["b", "d"]], initial=["a"], max_features=1)
    assert (grouped.names, grouped.order) == (["b+d"], [(1, 3)])
    assert scrubjay.codec(frame.target, frame[["b", "d"]]) == scrubjay.codec(y, x[:, [1, 3]])
    # A column that is known from the start is not chosen.
    assert 3 not in scrubjay.foci(x, y, initial=[3]).order


def test_significance_and_seeds():
    x, y = table()
    strong, weak = scrubjay.codec(y, x[:, [1, 3]], permutations=99), scrubjay.codec(y, x[:, 4], permutations=99)
    assert strong.p_value == 0.01 and weak.p_value > 0.05
    found = scrubjay.codec(y, x[:, 3], level=0.9)
    assert found.interval[0] < found.value < found.interval[1] and found.subsample < 150
    noisy = [scrubjay.codec(y, x[:, 3], noise=0.1, seed=seed).value for seed in (1, 1, 2)]
    assert noisy[0] == noisy[1] != noisy[2]
    assert scrubjay.codec(np.ones(10), np.arange(10.0)).value is None


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x, y: scrubjay.foci(x, y[:-1]), ["(149, 1)", "[150]"]),
        (lambda x, y: scrubjay.foci(x, "a"), ["no names"]),
        (lambda x, y: scrubjay.foci(x, y, initial=[7]), ["no column 7"]),
        (lambda x, y: scrubjay.foci(x, y, groups=[[1], [1]]), ["column 1 is named twice"]),
        (lambda x, y: scrubjay.codec(y, x, standardize="strong"), ["strong", "scale"]),
        (lambda x, y: scrubjay.codec(y, x, ties="random", draws=0), ["draws"]),
        (lambda x, y: scrubjay.codec(y, x, permutations=0), ["permutation"]),
        (lambda x, y: scrubjay.codec(x, y), ["y has 5 columns"]),
        (lambda x, y: scrubjay.codec(y[:2], x), ["[2, 150] rows"]),
    ],
)
def test_what_means_nothing_is_refused(call, words):
    with pytest.raises(ValueError) as caught:
        call(*table())
    assert isinstance(caught.value, scrubjay.ScrubjayError)
    assert all(word in str(caught.value) for word in words), caught.value


def test_what_is_no_number_is_named():
    x, y = table()
    frame = pd.DataFrame(x, columns=list("abcde"))
    with pytest.raises(scrubjay.DataError, match="column `word` holds"):
        scrubjay.foci(frame.assign(word="x"), y)
    frame.iloc[7, 2] = np.nan
    with pytest.raises(scrubjay.DataError, match="row 7 of column `c` is nan"):
        scrubjay.foci(frame, y)


def test_results_are_those_of_the_program(program, tmp_path):
    x, y = table(300, 4, 5)
    frame = pd.DataFrame(x, columns=list("abcd")).assign(y=y)
    path = tmp_path / "t.csv"
    frame.to_csv(path, index=False)
    printed = json.loads(program("foci", path, "--target", "y", "--json", "--noise", "0.05", "--seed", 3))
    found = scrubjay.foci(frame, "y", noise=0.05, seed=3)
    assert (printed["names"], printed["conditional"], printed["cumulative"]) == (found.names, found.conditional, found.cumulative)
    words = ["--y", "y", "--z", "c", "--x", "a,b", "--permutations", 50, "--interval", "0.9", "--noise", "0.1", "--seed", 4]
    printed = json.loads(program("codec", path, "--json", *words))
    found = scrubjay.codec(frame.y, frame.c, frame[["a", "b"]], permutations=50, level=0.9, noise=0.1, seed=4)
    assert (printed["statistic"], printed["p_value"], tuple(printed["interval"])) == (found.value, found.p_value, found.interval)
