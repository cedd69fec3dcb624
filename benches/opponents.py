"""What the benches measure, done by others on the same machine: batched PyTorch for the network, scikit-learn, SciPy and
batched PyTorch for FOCI's greedy step, R's FOCI where R is at hand. Medians in milliseconds, beside `cargo bench`.

    pip install torch numpy scipy scikit-learn
    python3 benches/opponents.py [network] [foci]
"""

import shutil
import statistics
import subprocess
import sys
import time


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


def foci():
    import numpy as np

    rng = np.random.default_rng(0)
    n = 1000
    x = rng.standard_normal((n, 27560), dtype=np.float32)

    def with_sklearn(step, p):
        from sklearn.neighbors import NearestNeighbors

        for j in range(p):
            z = x[:, [*range(step), 27559 - j]]
            NearestNeighbors(n_neighbors=2).fit(z).kneighbors(z)

    def with_scipy(step, p):
        from scipy.spatial import cKDTree

        for j in range(p):
            z = x[:, [*range(step), 27559 - j]]
            cKDTree(z).query(z, k=2)

    def with_torch(step, p, batch=8):
        import torch

        t = torch.from_numpy(x)
        chosen = torch.zeros(n, n)
        for j in range(step):
            chosen += (t[:, j, None] - t[None, :, j]) ** 2
        chosen.fill_diagonal_(float("inf"))
        for j in range(0, p, batch):
            z = t[:, j : j + batch].T
            (chosen + (z[:, :, None] - z[:, None, :]) ** 2).min(2)

    p = 200
    print(f"\nneighbours of {p} candidates, n = {n}; times 27,560/{p} for a whole step at p = 27,560")
    for step in 1, 2, 4, 8:
        for name, run in ("sklearn", with_sklearn), ("scipy cKDTree", with_scipy), ("torch, dense", with_torch):
            try:
                measure(f"foci/{p} candidates, |S| = {step}, {name}", lambda: run(step, p), 3)
            except ImportError as missing:
                print(f"foci/{name}: left out, {missing}")

    if not shutil.which("Rscript"):
        return print("R's FOCI: left out, no Rscript")
    script = """
        suppressMessages(library(FOCI)); set.seed(0); n <- 1000; p <- 100
        x <- matrix(rnorm(n * p), n); y <- x[, 1] + x[, 2]^2 + x[, 3] * x[, 4] + 0.5 * rnorm(n)
        cat(1e3 * system.time(foci(y, x, numCores = 2))[["elapsed"]])"""
    done = subprocess.run(["Rscript", "-e", script], capture_output=True, text=True)
    print("foci/whole, p = 100, R's FOCI:", done.stdout + " ms" if done.returncode == 0 else "left out, not installed")


if __name__ == "__main__":
    print(f"{'case':<60} {'median ms':>10} {'least':>10} {'most':>10}")
    for part in sys.argv[1:] or ["network", "foci"]:
        {"network": network, "foci": foci}[part]()
