#!/usr/bin/env python3
"""Draws the cells of the forgetting table, and writes them as one CSV file.

    scripts/forget-plots.py DIR [DIR ...] --out docs/forgetting

Each DIR is one that `scripts/forget-table --out` wrote. Out come `cells.csv` (a line a cell, without the losses of single samples),
`gaps.svg` (the mean gap of each method and request) and `losses.svg` (the losses of the forgotten samples, beside retrained
networks). Needs matplotlib. The same cells give the same bytes, with the same version of matplotlib.
"""

import argparse
import csv
import json
from pathlib import Path
from statistics import mean, stdev

import matplotlib
from matplotlib import pyplot

RETRAINED, HOLD, VOTE, NONE = "retrained", "ours: hold", "ours: vote", "none"
SHOWN = {  # the methods of the plots, from the top
    NONE: "untouched",
    HOLD: "hold",
    "ours: hold, neighbours": "hold, neighbours as a proxy",
    VOTE: "L-CODEC, voted block",
    "random block": "L-CODEC, random block",
    "NegGrad+ of the hold's cost": "NegGrad+, 5 epochs",
    "SalUn": "SalUn",
    "RUM-like": "RUM-like",
    "ReGUn-like": "ReGUn-like",
}
DEFAULTS = {HOLD: "proxy 4 epochs, hold 4"}  # of `scrub`; others are tuned
REQUESTS = {"25 random": "25 random samples", "100 random": "100 random samples", "class 3": "a class", "mislabelled": "100 wrong labels"}
MEASURES = ("forget", "retain", "test", "auc")
COLUMNS = ["setup", "request", "method", "setting", "draw", "seed", *MEASURES, "forget_loss", "retain_loss", "test_loss", "gap", "epochs", "refused"]
BLUE, GREEN, GREY = "#2563a8", "#2f855a", "#8a8f98"


def read(folder):
    """The cells of a table, without those of methods that it no longer has; a line that is not whole ends it."""
    cells = []
    for line in (Path(folder) / "cells.jsonl").read_text().splitlines()[1:]:
        try:
            cell = json.loads(line)
        except ValueError:
            break
        if cell["method"] in SHOWN or cell["method"] == RETRAINED or cell["method"].startswith("ours"):
            cells.append(cell)
    return cells


def gap(cell, others):
    """As `verify::average_gap`: the mean of the differences to the mean of retrained networks, in points."""
    differences = (abs(cell["measured"][name] - mean(other["measured"][name] for other in others)) for name in MEASURES)
    return 100 * mean(differences)


class Request:
    """The cells of one request of one set-up, each with its gap."""

    def __init__(self, cells):
        self.cells, self.setup, self.name = cells, cells[0]["setup"], cells[0]["request"]
        retrained = [cell for cell in cells if cell["method"] == RETRAINED]
        self.epoch = mean(cell["epoch"] for cell in retrained)
        for cell in cells:
            others = [other for other in retrained if other["draw"] == cell["draw"] and other is not cell]
            cell["gap"] = gap(cell, others)

    def title(self):
        return f"{self.setup}: {REQUESTS[self.name]}"

    def of(self, method):
        """The cells of a method: at its defaults, or else at the setting whose predicted gap is least, as in the table."""
        settings = {}
        for cell in self.cells:
            if cell["method"] == method and cell["setting"] == DEFAULTS.get(method, cell["setting"]):
                settings.setdefault(cell["setting"], []).append(cell)
        predicted = lambda cells: mean(cell["measured"]["predicted_gap"] for cell in cells)
        return min(settings.values(), key=predicted, default=[])

    def losses(self, method):
        return [loss for cell in self.of(method) for loss in cell["measured"]["losses"]]


def write_cells(requests, path):
    rounded = lambda value: "" if value is None else f"{value:.6g}"
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for request in requests:
            for cell in request.cells:
                measured = [rounded(cell["measured"][name]) for name in (*MEASURES, "forget_loss", "retain_loss", "test_loss")]
                named = [cell[name] for name in COLUMNS[:6]]
                out.writerow([*named, *measured, rounded(cell["gap"]), rounded(cell["seconds"] / request.epoch), cell["note"]])


def draw_gaps(requests, path):
    """A panel a request: a dot a run, a bar at their mean, and the floor with its spread."""
    figure, panels = pyplot.subplots(1, len(requests), figsize=(13, 3.6), sharey=True, layout="constrained")
    names = list(SHOWN)
    for panel, request in zip(panels, requests):
        floor = [cell["gap"] for cell in request.cells if cell["method"] == RETRAINED]
        middle, spread = mean(floor), stdev(floor)
        panel.axvspan(max(middle - spread, 0.02), middle + spread, color=GREY, alpha=0.25, lw=0)
        panel.axvline(middle, color=GREY, lw=1)
        for row, method in enumerate(names):
            gaps = [cell["gap"] for cell in request.of(method)]
            if not gaps:
                continue
            color = BLUE if method.startswith("ours: hold") else GREEN if method in (VOTE, "random block") else "#444444"
            panel.plot(gaps, [row] * len(gaps), ".", color=color, alpha=0.35, ms=5, mew=0)
            panel.plot([mean(gaps)] * 2, [row - 0.32, row + 0.32], color=color, lw=2.5, solid_capstyle="butt")
        panel.set(xscale="log", xlim=(0.03, 50), title=request.title(), yticks=range(len(names)), yticklabels=SHOWN.values())
        panel.set_xticks([0.1, 1, 10], ["0.1", "1", "10"])
        panel.grid(axis="x", color="#dddddd", lw=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.supxlabel("mean gap to retrained networks, points (grey: one retrained network against the others)", fontsize=10)
    save(figure, path)


def draw_losses(requests, path):
    """A panel a request: how many of the forgotten samples have which loss."""
    figure, panels = pyplot.subplots(1, len(requests), figsize=(13, 2.9), layout="constrained")
    edges = [10 ** (exponent / 4) for exponent in range(-24, 9)]
    shown = {RETRAINED: ("retrained", GREY), NONE: ("untouched", "#b7791f"), VOTE: ("L-CODEC, voted block", GREEN), HOLD: ("hold", BLUE)}
    for panel, request in zip(panels, requests):
        for method, (label, color) in shown.items():
            losses = [min(max(loss, edges[0]), edges[-1]) for loss in request.losses(method)]
            weights = [100 / len(losses)] * len(losses)
            filled = method == RETRAINED
            kind = dict(histtype="stepfilled", alpha=0.35, lw=0) if filled else dict(histtype="step", lw=1.6)
            panel.hist(losses, bins=edges, weights=weights, color=color, label=label, **kind)
        panel.set(xscale="log", title=request.title(), xlim=(edges[0], edges[-1]))
        panel.set_xticks([1e-6, 1e-3, 1, 100], ["≤ 10⁻⁶", "10⁻³", "1", "100"])
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("of the forgotten samples, %")
    figure.supxlabel("loss of a forgotten sample", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=len(shown), frameon=False)
    save(figure, path)


def save(figure, path):
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", metavar="DIR")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    matplotlib.use("svg")
    pyplot.rcParams.update({"svg.hashsalt": "scrubjay", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9, "axes.titlesize": 10})
    found = {}
    for cell in (cell for folder in args.tables for cell in read(folder)):
        found.setdefault((cell["setup"], cell["request"]), []).append(cell)
    requests = [Request(cells) for cells in found.values()]
    write_cells(requests, args.out / "cells.csv")
    draw_gaps(requests, args.out / "gaps.svg")
    draw_losses(requests, args.out / "losses.svg")
    for request in requests:
        for method, shown in SHOWN.items():
            gaps = [cell["gap"] for cell in request.of(method)]
            print(f"{request.title():30} {shown:30} {mean(gaps):6.2f} ± {stdev(gaps):.2f} ({len(gaps)})")


if __name__ == "__main__":
    main()
