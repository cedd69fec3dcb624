"""PyTorch on a GPU at what `scrubjay bench` has of whole networks (resnet50*, vit16*) and steps of FOCI (foci_step). Needs
torch alone; weights are random.

    python3 benches/pytorch.py [passes] [derivatives] [foci] [--json FILE]
    python3 benches/pytorch.py --device cpu --copies 4 --side 32 --images 2 --n 50 --p 20

passes       losses and every layer's per-image channel means of noisy copies of one image; bf16 and f32 by TF32, as they
             are and compiled; ResNet-50 in channels-last form
derivatives  ResNet-50's gradient, and its exact Hessian by a vector: with the gradient anew, alone, and by jvp of grad
foci         a step: ranks of the nearest rows in the chosen columns and each candidate, all distances, in batches; the first
             step by sorts. Data has no ties.

Medians in milliseconds, of events on the GPU, after warming up. Results stay on the GPU; those of `scrubjay bench` come to the
host, but for resnet50_hv's. A case that fails is reported, and the rest goes on.
"""

import argparse
import json
import statistics
import time

import torch
from torch import nn
from torch.nn import functional as F

args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
args.add_argument("parts", nargs="*", default=["passes", "derivatives", "foci"])
args.add_argument("--device", default="cuda")
args.add_argument("--json")
for name, size in dict(copies=1000, at_once=250, side=224, images=64, n=1000, p=27_560, runs=5).items():
    args.add_argument(f"--{name.replace('_', '-')}", type=int, default=size)
args = args.parse_args()
device = torch.device(args.device)
rows, failures = [], []


def measure(case, shape, run):
    """Times `run` and prints the result, or the error that it raised."""
    try:
        run(), run()
        times = []
        for _ in range(args.runs):
            if device.type == "cuda":
                start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                torch.cuda.synchronize()
                start.record()
                run()
                end.record()
                torch.cuda.synchronize()
                times.append(start.elapsed_time(end))
            else:
                start = time.perf_counter()
                run()
                times.append(1e3 * (time.perf_counter() - start))
        median, least, most = statistics.median(times), min(times), max(times)
        print(f"{case:<52} {shape:<24} {median:>10.2f} {least:>10.2f} {most:>10.2f}", flush=True)
        rows.append({"case": case, "shape": shape, "median_ms": median, "least_ms": least, "most_ms": most})
    except Exception as error:
        print(f"{case:<52} {shape:<24} failed: {str(error).splitlines()[:1]}", flush=True)
        failures.append(case)
    if args.json:
        about = {"torch": torch.__version__, "device": name, "rows": rows, "failed": failures}
        with open(args.json, "w") as file:
            json.dump(about, file, indent=1)


class Traced(nn.Module):
    """A network that gives logits, and of every layer the mean of its own output over an image's positions."""

    def forward(self, x):
        means = []

        def see(layer, x):
            y = layer(x)
            means.append(y.mean((2, 3) if y.dim() == 4 else 1, dtype=torch.float32) if y.dim() > 2 else y.float())
            return y

        return self.logits(x, see), torch.cat(means, 1)


class Bottleneck(nn.Module):
    def __init__(self, last, inner, stride, widens):
        super().__init__()
        conv = lambda c, o, k, s=1: nn.Conv2d(c, o, k, s, k // 2, bias=False)
        self.convs = nn.ModuleList([conv(last, inner, 1), conv(inner, inner, 3, stride), conv(inner, 4 * inner, 1)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(inner), nn.BatchNorm2d(inner), nn.BatchNorm2d(4 * inner)])
        self.across = conv(last, 4 * inner, 1, stride) if widens else None
        self.norm = nn.BatchNorm2d(4 * inner) if widens else None

    def forward(self, x, see):
        y = x
        for k in range(3):
            y = self.norms[k](see(self.convs[k], y if k == 0 else y.relu()))
        return (y + (self.norm(see(self.across, x)) if self.across else x)).relu()


class ResNet50(Traced):
    def __init__(self, classes=1000):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        self.blocks, last = nn.ModuleList(), 64
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                self.blocks.append(Bottleneck(last, 64 << stage, stride, block == 0))
                last = 256 << stage
        self.fc = nn.Linear(last, classes)

    def logits(self, x, see):
        x = F.max_pool2d(self.norm(see(self.stem, x)).relu(), 3, 2, 1)
        for block in self.blocks:
            x = block(x, see)
        return see(self.fc, x.mean((2, 3)))


class ViT(Traced):
    """ViT-B/16 as timm has it."""

    def __init__(self, side, classes=1000, width=768, depth=12):
        super().__init__()
        self.patch, self.heads = nn.Conv2d(3, width, 16, 16), width // 64
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, (side // 16) ** 2 + 1, width))
        norms = lambda: nn.ModuleList(nn.LayerNorm(width, 1e-6) for _ in range(depth))
        linears = lambda c, o: nn.ModuleList(nn.Linear(c, o) for _ in range(depth))
        self.norm1, self.norm2, self.norm = norms(), norms(), nn.LayerNorm(width, 1e-6)
        self.qkv, self.proj = linears(width, 3 * width), linears(width, width)
        self.fc1, self.fc2 = linears(width, 4 * width), linears(4 * width, width)
        self.head = nn.Linear(width, classes)

    def logits(self, x, see):
        x = see(self.patch, x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.positions
        for i in range(len(self.qkv)):
            q, k, v = see(self.qkv[i], self.norm1[i](x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + see(self.proj[i], y)
            x = x + see(self.fc2[i], F.gelu(see(self.fc1[i], self.norm2[i](x))))
        return see(self.head, self.norm(x)[:, 0])


def tf32(on):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = on


def passes():
    tf32(True)
    shape = f"m={args.copies},side={args.side}"
    for of, make, form in (
        ("resnet50", ResNet50, torch.channels_last),
        ("vit16", lambda: ViT(args.side), torch.contiguous_format),
    ):
        torch.manual_seed(0)
        net = make().eval().to(device, memory_format=form)
        image = torch.randn(1, 3, args.side, args.side, device=device)
        for dtype, words in (torch.bfloat16, "bf16"), (torch.float32, "tf32"):
            net = net.to(dtype)

            def chunk(net, n):
                noisy = image + 0.1 * torch.randn(n, *image.shape[1:], device=device)
                logits, means = net(noisy.to(dtype, memory_format=form))
                labels = torch.zeros(n, dtype=torch.long, device=device)
                return F.cross_entropy(logits.float(), labels, reduction="none"), means

            @torch.no_grad()
            def run(net):
                sizes = [min(args.at_once, args.copies - i) for i in range(0, args.copies, args.at_once)]
                return [torch.cat(both) for both in zip(*(chunk(net, n) for n in sizes))]

            measure(f"{of}, {words}, {args.at_once} at once", shape, lambda: run(net))
            compiled = torch.compile(net, dynamic=False)
            measure(f"{of}, {words}, {args.at_once} at once, compiled", shape, lambda: run(compiled))
            torch._dynamo.reset()


def derivatives():
    torch.manual_seed(0)
    net = ResNet50().eval().to(device, memory_format=torch.channels_last)
    x = torch.randn(args.images, 3, args.side, args.side, device=device).to(memory_format=torch.channels_last)
    y = torch.arange(args.images, device=device) * 7 % 1000
    layers = [(n, m) for n, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    weights = {f"{n}.{key}": w for n, m in layers for key, w in m.named_parameters()}
    some, v = list(weights.values()), {key: torch.randn_like(w) for key, w in weights.items()}
    loss = lambda: F.cross_entropy(net(x)[0], y)

    def product():
        g = torch.autograd.grad(loss(), some, create_graph=True)
        return torch.autograd.grad(g, some, list(v.values()))

    def of(weights):
        return F.cross_entropy(torch.func.functional_call(net, weights, (x,))[0], y)

    shape = f"m={args.images},side={args.side}"
    for on, words in (False, "f32"), (True, "tf32"):
        tf32(on)
        measure(f"resnet50 gradient, {words}", shape, lambda: torch.autograd.grad(loss(), some))
        measure(f"resnet50 gradient and Hv, {words}", shape, product)
        measure(f"resnet50 Hv by jvp of grad, {words}", shape, lambda: torch.func.jvp(torch.func.grad(of), (weights,), (v,)))
        try:
            g = torch.autograd.grad(loss(), some, create_graph=True)
        except torch.OutOfMemoryError:
            continue
        again = lambda: torch.autograd.grad(g, some, list(v.values()), retain_graph=True)
        measure(f"resnet50 Hv alone, {words}", shape, again)
        del g


def totals(chosen, z, rank):
    """Of candidates z [b, n]: the sum of min(R_i, R_M(i)), M(i) the nearest to i by `chosen` [n, n] and the candidate."""
    near = (chosen + (z[:, :, None] - z[:, None, :]) ** 2).argmin(2)
    return torch.minimum(rank, rank[near]).sum(1)


def totals_of_one(z, rank):
    """The same with nothing chosen: the nearest is next in order."""
    z, order = z.sort(1)
    gap = z[:, 1:] - z[:, :-1]
    far = torch.full_like(gap[:, :1], float("inf"))
    left = torch.cat([far, gap], 1) <= torch.cat([gap, far], 1)
    near = torch.where(left, order.roll(1, 1), order.roll(-1, 1))
    return torch.minimum(rank[order], rank[near]).sum(1)


def step(x, chosen, rank, at_once, totals=totals):
    """The column of the largest total and that; x [p, n], chosen [k, n]."""
    if len(chosen) == 0:
        sums = torch.cat([totals_of_one(z, rank) for z in x.split(at_once)])
    else:
        distance = sum((c[:, None] - c[None, :]) ** 2 for c in chosen)
        distance.fill_diagonal_(float("inf"))
        sums = torch.cat([totals(distance, z, rank) for z in x.split(at_once)])
    return sums.argmax(), sums


def foci():
    def data(n, p):
        torch.manual_seed(0)
        x, chosen, y = (torch.randn(*of, device=device) for of in ((p, n), (8, n), (n,)))
        return x, chosen, y.argsort().argsort() + 1

    x, chosen, rank = data(40, 9)
    for k in 0, 1, 2, 4, 8:
        _, sums = step(x, chosen[:k], rank, 4)
        for j in range(len(x)):
            points = torch.cat([chosen[:k], x[j : j + 1]]).double().T.tolist()
            apart = lambda a, b: sum((s - t) ** 2 for s, t in zip(a, b))
            near = [min((apart(a, b), j) for j, b in enumerate(points) if b is not a)[1] for a in points]
            assert sums[j] == sum(min(rank[i], rank[m]) for i, m in enumerate(near)), (k, j)
    x, chosen, rank = data(args.n, args.p)
    at_once = max(1, min(args.p, (1 << 29) // args.n**2))
    compiled = torch.compile(totals)
    for k in 0, 1, 2, 4, 8:
        shape = f"n={args.n},p={args.p},k={k}"
        measure("foci step", shape, lambda: step(x, chosen[:k], rank, at_once))
        if k > 0:
            measure("foci step, compiled", shape, lambda: step(x, chosen[:k], rank, at_once, compiled))


name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
torch.backends.cudnn.benchmark = True
print(f"PyTorch {torch.__version__}, {name}\n{'case':<52} {'shape':<24} {'median ms':>10} {'least':>10} {'most':>10}")
for part in args.parts:
    {"passes": passes, "derivatives": derivatives, "foci": foci}[part]()
raise SystemExit(f"failed: {', '.join(failures)}" if failures else 0)
