"""What the benches measure, done by others on the same machine.

    pip install torch numpy scipy scikit-learn
    python3 benches/opponents.py [network] [models] [foci] [known]

network  batched PyTorch beside `cargo bench --bench network`: run that yourself. Medians in milliseconds.
models   torchvision's networks with depthwise filters beside `cargo bench --bench network -- --model FILE..`: it writes the files
         to the current folder and prints PyTorch's times. Needs torchvision and safetensors too.
foci     `cargo bench --bench foci` and its opponents in the same run, in turn, as one table: nearest neighbours per
         candidate by scikit-learn and by SciPy, all candidates in batches by PyTorch, R's FOCI where R has it.
known    `scrubjay codec` and `foci` as whole commands on data of which the answer is known; build it first. Spambase
         and MADELON where SCRUBJAY_DATA points at them.

On a GPU: benches/pytorch.py.
"""

import gzip
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def measure(name, run, runs=5):
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    print(f"{name:<60} {statistics.median(times):>10.1f} {min(times):>10.1f} {max(times):>10.1f}", flush=True)


def resnet18():
    """torchvision's ResNet-18 with 10 classes."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, inner, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(inner, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.downsample = None
            if inner != width:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inner, width, 1, stride, bias=False), nn.BatchNorm2d(width)
                )

        def forward(self, x):
            y = self.bn1(self.conv1(x)).relu()
            y = self.bn2(self.conv2(y))
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inner = 64
    for width, stride in (64, 1), (128, 2), (256, 2), (512, 2):
        layers += [Block(inner, width, stride), Block(width, width, 1)]
        inner = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)).eval()


def network():
    import torch

    torch.manual_seed(0)
    net = resnet18()
    loss = torch.nn.CrossEntropyLoss()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'case':<60} {'median ms':>10} {'least':>10} {'most':>10}")

    x, y = torch.randn(1000, 3, 32, 32), torch.randint(10, (1000,))
    layers = [m for m in net.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.Linear))]
    traces = []
    mean = lambda _, __, out: traces.append(out.mean((2, 3)) if out.dim() == 4 else out)

    for form in torch.contiguous_format, torch.channels_last:
        net, x = net.to(memory_format=form), x.contiguous(memory_format=form)
        name = str(form).removeprefix("torch.")

        def passes(batch):
            with torch.no_grad():
                for i in range(0, 1000, batch):
                    logits = net(x[i : i + batch])
                    traces.append(torch.nn.functional.cross_entropy(logits, y[i : i + batch], reduction="none"))
            traces.clear()

        hooks = [layer.register_forward_hook(mean) for layer in layers]
        for batch in 125, 1000:
            measure(f"resnet18/1000 perturbation passes, batch {batch}, {name}", lambda: passes(batch))
        for hook in hooks:
            hook.remove()

        weights = [w for layer in layers for w in layer.parameters()]
        last = [w for w in net[10].parameters() if w.dim() == 4]
        last += [*net[11].conv1.parameters(), *net[11].conv2.parameters(), *net[-1].parameters()]
        bx, by = x[:64], y[:64]
        measure(
            f"resnet18/gradient, batch 64, {name}", lambda: torch.autograd.grad(loss(net(bx), by), weights), 9
        )
        for which, block in ("full", weights), ("last stage", last):
            v = [torch.randn_like(w) for w in block]

            def product():
                g = torch.autograd.grad(loss(net(bx), by), block, create_graph=True)
                torch.autograd.grad(g, block, v)

            measure(f"resnet18/hessian product, {which}, batch 64, {name}", product, 9)


def models():
    import torch
    import torchvision
    from safetensors.torch import save_file

    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'case':<60} {'median ms':>10} {'least':>10} {'most':>10}")
    for name in "mobilenet_v2", "efficientnet_b0", "convnext_tiny":
        torch.manual_seed(0)
        net = getattr(torchvision.models, name)(weights=None).eval()
        save_file({key: tensor.contiguous() for key, tensor in net.state_dict().items()}, f"{name}.safetensors")
        x, y = torch.randn(8, 3, 224, 224), torch.randint(1000, (8,))
        weights = [w for layer in net.modules() if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)) for w in layer.parameters()]
        for form in torch.contiguous_format, torch.channels_last:
            net, x = net.to(memory_format=form), x.contiguous(memory_format=form)
            what = str(form).removeprefix("torch.")
            gradient = lambda: torch.autograd.grad(torch.nn.functional.cross_entropy(net(x), y), weights)
            with torch.no_grad():
                measure(f"{name}/forward pass, batch 8, {what}", lambda: net(x), 7)
            measure(f"{name}/gradient, batch 8, {what}", gradient)


ROUNDS = 3


def bench(part, *options):
    """Medians in milliseconds of a part of our bench, by case: by the clock and by what the threads ran."""
    command = ["cargo", "bench", "--locked", "--quiet", "--bench", "foci", "--", part, *options]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = (re.fullmatch(r"(\S.*?)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)", line) for line in lines)
    return {match[1]: (float(match[2]), float(match[5])) for match in found if match}


def seconds(run):
    """Of the clock, and of what this process ran."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def candidates_by_sklearn(x, step, p):
    from sklearn.neighbors import NearestNeighbors

    for j in range(p):
        z = x[:, [*range(step), x.shape[1] - 1 - j]]
        NearestNeighbors(n_neighbors=2).fit(z).kneighbors(z)


def candidates_by_scipy(x, step, p):
    from scipy.spatial import cKDTree

    for j in range(p):
        z = x[:, [*range(step), x.shape[1] - 1 - j]]
        cKDTree(z).query(z, k=2)


def candidates_by_torch(x, step, p):
    import torch

    n, t = len(x), torch.from_numpy(x)
    batch = max(1, 8_000_000 // n**2)
    chosen = torch.zeros(n, n)
    for j in range(step):
        chosen += (t[:, j, None] - t[None, :, j]) ** 2
    chosen.fill_diagonal_(float("inf"))
    for j in range(0, p, batch):
        z = t[:, x.shape[1] - p + j :][:, :batch].T
        (chosen + (z[:, :, None] - z[:, None, :]) ** 2).min(2)


OPPONENTS = {"sklearn": candidates_by_sklearn, "SciPy": candidates_by_scipy, "torch": candidates_by_torch}


def t_by_scipy(y, z, x, workers):
    """T(Y, Z | X) without ties."""
    import numpy as np
    from scipy.spatial import cKDTree

    ranks = np.empty(len(y), np.int64)
    ranks[np.argsort(y)] = np.arange(1, len(y) + 1)

    def total(points):
        _, nearest = cKDTree(points).query(points, k=2, workers=workers)
        return np.minimum(ranks, ranks[nearest[:, 1]]).sum()

    given = total(x[:, None])
    return (total(np.column_stack([x, z])) - given) / (ranks.sum() - given)


def foci():
    import numpy as np
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    cores = os.cpu_count()
    versions = f"NumPy {np.__version__}, PyTorch {torch.__version__}; {cores} cores"
    print(f"{versions}; medians of {ROUNDS} rounds: ours, then the others")
    print("Milliseconds that one thread ran. Others: neighbours of a sample of the candidates, times p / sample.")

    def header(columns):
        print(f"\n| case | ours | {' | '.join(columns)} |\n| --- |{' --- |' * (1 + len(columns))}")

    def row(name, ours, others):
        times = " | ".join(f"{time:,.0f} ({time / ours:,.0f}×)" for time in others)
        print(f"| {name} | {ours:,.1f} | {times} |", flush=True)

    def rounds(part, work, threads=1):
        """Of the cases of a part of our bench and of some work: the medians, by the clock and of CPU."""
        times = {}
        for _ in range(ROUNDS):
            of = bench(part, "--threads", str(threads)) | {key: seconds(run) for key, run in work.items()}
            for key, both in of.items():
                times.setdefault(key, []).append(both)
        return {key: [statistics.median(of) for of in zip(*both)] for key, both in times.items()}

    # A greedy step.
    n, p, sample = 1000, 27_560, 100
    x = rng.standard_normal((n, sample + 8), dtype=np.float32)
    for run in OPPONENTS.values():
        run(x, 1, 2)  # what is loaded at first use
    work = {
        (chosen, key): lambda chosen=chosen, run=run: run(x, chosen, sample)
        for chosen in (1, 2, 4, 8)
        for key, run in OPPONENTS.items()
    }
    times = rounds("steps", work)
    header(OPPONENTS)
    for chosen in (1, 2, 4, 8):
        others = [1e3 * times[chosen, key][1] * p / sample for key in OPPONENTS]
        row(f"step, n = {n:,}, p = {p:,}, \\|S\\| = {chosen}", times[f"step/n={n},p={p},|S|={chosen}"][1], others)

    # A whole selection of 4 columns: five steps, the last of which finds nothing.
    n, p, steps = 10_000, 1000, 5
    searches = ["sklearn", "SciPy"]  # n × n per candidate is no rival here
    sample = 20
    x = rng.standard_normal((n, sample + steps), dtype=np.float32)
    work = {
        (step, key): lambda step=step, key=key: OPPONENTS[key](x, step, sample)
        for step in range(steps)
        for key in searches
    }
    times = rounds("large", work)
    others = [1e3 * sum(times[step, key][1] for step in range(steps)) * p / sample for key in searches]
    header(searches)
    case = f"foci/n={n},p={p} ({steps - 1} found)"
    row(f"whole FOCI, n = {n:,}, p = {p:,}", times[case][1], others)
    others = [1e3 * sum(times[step, key][0] for step in range(steps)) * p / sample for key in searches]
    ours = statistics.median(bench("large", "--threads", str(cores))[case][0] for _ in range(ROUNDS))
    row(f"the same by the clock: ours with {cores} threads, the others with one", ours, others)

    # One T.
    y, z, given = (rng.standard_normal(100_000) for _ in range(3))
    for threads, name in (1, "one thread"), (cores, f"{cores} threads, by the clock"):
        times = rounds("single", {"SciPy": lambda: t_by_scipy(y, z, given, threads)}, threads)
        of = 1 if threads == 1 else 0
        header(["SciPy"])
        ours = times["T/n=100000, given one column"][of]
        row(f"T given one column, n = 100,000, {name}", ours, [1e3 * times["SciPy"][of]])

    if not shutil.which("Rscript"):
        return print("R's FOCI: left out, no Rscript")
    script = """
        suppressMessages(library(FOCI)); set.seed(0); n <- 1000; p <- 100
        x <- matrix(rnorm(n * p), n); y <- x[, 1] + x[, 2]^2 + x[, 3] * x[, 4] + 0.5 * rnorm(n)
        cat(1e3 * system.time(foci(y, x, numCores = 1))[["elapsed"]])"""
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True)
    said = f"{done.stdout} ms" if done.returncode == 0 else "left out, not installed"
    print("whole FOCI, n = 1,000, p = 100, R's:", said)


def known():
    """Whole commands, the start of the program and the reading of the file in them."""
    import resource

    import numpy as np

    rng = np.random.default_rng(0)
    program = ROOT / "target/release/scrubjay"
    with tempfile.TemporaryDirectory() as folder:
        modulo, polar = f"{folder}/modulo.npy", f"{folder}/polar.npy"
        x = rng.random((10_000, 3))
        np.save(modulo, np.column_stack([x, x.sum(1) % 1]))
        x = rng.standard_normal((1000, 2))
        np.save(polar, np.column_stack([x, np.arctan(x[:, 0] / x[:, 1]), (x**2).sum(1)]))
        t = lambda file, z, *x: ["codec", file, "--y", "3", "--z", z, *x]
        cases = {
            "mod 1, n = 10,000: T(Y, X1)": t(modulo, "0"),
            "T(Y, (X1, X2))": t(modulo, "0,1"),
            "T(Y, (X1, X2) given X3)": t(modulo, "0,1", "--x", "2"),
            "T(Y, (X1, X2, X3))": t(modulo, "0-2"),
            "polar, n = 1,000: T(Y, Z)": t(polar, "2"),
            "T(Y, Z given X1)": t(polar, "2", "--x", "0"),
            "digits, 1,797 × 64": ["foci", str(ROOT / "assets/digits.csv.gz"), "--target", "64"],
        }
        if tabular := os.environ.get("SCRUBJAY_DATA"):
            tabular = Path(tabular) / "tabular"
            spambase, madelon = f"{folder}/spambase.csv", f"{folder}/madelon.npy"
            shutil.copy(tabular / "spambase/spambase.data", spambase)
            rows = gzip.open(tabular / "madelon/madelon_train.data.gz", "rt").read().split("\n")
            labels = (tabular / "madelon/madelon_train.labels").read_text().split()
            np.save(madelon, [[*map(float, row.split()), float(y)] for row, y in zip(rows, labels)])
            cases["spambase, 4,601 × 57"] = ["foci", spambase, "--target", "57"]
            cases["MADELON, 2,000 × 500"] = ["foci", madelon, "--target", "500"]
        print("\n| case | found | ms, median | least | most | CPU ms |\n| --- | --- | --- | --- | --- | --- |")
        ran = lambda: sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])
        for name, command in cases.items():
            command = [program, *command, "--device", "cpu", "--json"]
            run = lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found = json.loads(run())
            if "order" in found:
                found, runs = f"{len(found['order'])} columns, T {found['cumulative'][-1]:.3f}", 3
            else:
                found, runs = f"{found['statistic']:.3f}", 9
            times, cpu = [], []
            for _ in range(runs):
                before = ran()
                times.append(1e3 * seconds(run)[0])
                cpu.append(1e3 * (ran() - before))
            figures = [statistics.median(times), min(times), max(times), statistics.median(cpu)]
            print(f"| {name} | {found} | {' | '.join(f'{figure:,.0f}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    for part in sys.argv[1:] or ["network", "foci"]:
        {"network": network, "models": models, "foci": foci, "known": known}[part]()
