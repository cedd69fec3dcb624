#!/usr/bin/env python3
"""Predicts the time of a network's forward pass in bf16 on a GPU, without one.

    python3 benches/predict.py [--nvcc NVCC] [--nvdisasm NVDISASM] [--device h200] [--copies 1000] [--layers]

NVCC is of release 13.0; NVDISASM is that of CUDA 13.0 or later (pip: nvidia-cuda-nvdisasm). The kernels of kernels/ are compiled
for sm_90a, and instructions are counted in the loops of their machine code. The time of a layer is then the largest of

    issue     instructions of all warps of a multiprocessor / (4 a clock, of which EFFICIENCY is reached)
    tensor    products, with those of padded tiles / the peak of tensor cores
    L2        bytes that tiles read, and results / the bandwidth of L2
    memory    bytes of operands and results, each once / the bandwidth of memory

and an epilogue of the same kind follows the products of each tile. Values have 2 or 4 bytes, as the program of the pass has
them (`scrubjay inspect --program --precision bf16`); --f32 predicts a pass with all of them in f32, in which inputs are
rounded to 16 bits first. Weights are always rounded first. `floor` is what a kernel reaches at best whose values all have
2 bytes, if products run at PRACTICAL: the larger of products / 790 TFLOP/s and bytes / bandwidth, of one pass over each
layer. Launches, the host and what is not named are not in the numbers. No measurement has confirmed them yet.
"""
import argparse
import math
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

KERNELS = Path(__file__).resolve().parent.parent / "kernels"
# Multiprocessors, clock under load, bytes a second of L2 and of memory, bf16 operations a clock and multiprocessor.
DEVICES = {"h200": dict(sms=132, clock=1.7e9, l2=5.5e12, memory=4.3e12, tensor=4096)}
EFFICIENCY = 0.75  # of issue slots
PRACTICAL = 790e12  # operations a second that the best products in bf16 reach
BLOCK_M, BLOCK_N, BLOCK_K = 256, 128, 64  # of kernels/tiles.h
PORTABLE = 0.62  # of the peak of tensor cores, that mma reaches where wgmma reaches all
WARPS = 2  # that multiply, of each of the four schedulers


def loops(nvcc, nvdisasm, stem, symbol, never=()):
    """The loops of a kernel: instructions by name, innermost and outer ones; without the branches of some conditions."""
    with tempfile.TemporaryDirectory() as folder:
        cubin, source = f"{folder}/{stem}.cubin", Path(folder) / f"{stem}.cu"
        code = (KERNELS / f"{stem}.cu").read_text()
        for condition in never:
            assert f"if ({condition})" in code, condition
            code = code.replace(f"if ({condition})", "if (false)")
        source.write_text(code)
        subprocess.run([nvcc, "-cubin", "-arch=sm_90a", "-std=c++17", "-O3", f"-I{KERNELS}", source, "-o", cubin], check=True)
        text = subprocess.run([nvdisasm, "-c", cubin], check=True, capture_output=True, text=True).stdout
    body = re.split(r"^\s*\.text\.", text, flags=re.M)
    lines = next(part for part in body if part.startswith(f"{symbol}:")).splitlines()
    names, labels, found = [], {}, []
    for line in lines:
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(names)
        elif op := re.match(r"\s*/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z0-9_.]+)(.*);", line):
            names.append(op[1])
            target = re.search(r"\.L_\w+", op[2]) if op[1].startswith("BRA") else None
            if target and target[0] in labels:
                found.append(Counter(name.split(".")[0] for name in names[labels[target[0]]:]))
    return found


class Counts:
    """Issue slots of conv_sm90.cu: a step's, and those of 16 bytes of channels in the epilogue and of a summed row."""

    def __init__(self, nvcc, nvdisasm, bytes):
        found = loops(nvcc, nvdisasm, "conv_sm90", "conv_bf16_sm90" if bytes == 2 else "conv_bf16_wide_sm90")
        step = min((loop for loop in found if loop["HGMMA"]), key=lambda loop: loop.total())
        self.step = step.total()
        self.channels = 16 // bytes  # of a line; GELU has 5 FFMA or more for each (20 by erfc), all unrolled
        lines = min((loop for loop in found if loop["LDS"] and loop["FFMA"] >= (5 if bytes == 2 else 20) * self.channels and not loop["HGMMA"]), key=lambda loop: loop.total())
        gelu = sum(lines[name] for name in ("FFMA", "FMUL", "MUFU", "FSETP", "FSEL")) + lines["FADD"] - 2 * self.channels
        self.line, self.gelu = lines.total() - gelu, gelu
        sums = min((loop for loop in found if loop["DADD"] >= 16), key=lambda loop: loop.total())
        self.sum = sums.total() / sums["DADD"]


def affine(counts, device, pixels, c, o, taps=1, residual=False, gelu=False, input_values=None, types=(2, 2)):
    """Seconds of a layer by bound, of rounding, and its floor; `types` are the bytes of a value of x and of y, c is a multiple
    of 8, 32 or more."""
    x_bytes, y_bytes = types
    counts = counts[y_bytes]
    steps, clock = taps * math.ceil(c / BLOCK_K), device["clock"]
    tiles = math.ceil(pixels / BLOCK_M) * math.ceil(o / BLOCK_N)
    x = input_values or pixels * c
    each = math.ceil(tiles / device["sms"])
    tensor = 2 * BLOCK_M * BLOCK_N * BLOCK_K / device["tensor"]
    issue = counts.step * WARPS / EFFICIENCY
    lines = BLOCK_M * BLOCK_N // counts.channels // 32 // 8 * (counts.line + (counts.gelu if gelu else 0)) * WARPS / EFFICIENCY
    # A conversion to f64 takes 8 clocks of a scheduler.
    sums = BLOCK_M // 2 * max(counts.sum / EFFICIENCY, 8) * WARPS
    out = y_bytes * pixels * o * (2 if residual else 1)
    bound = {
        "issue" if issue > tensor else "tensor": each * (steps * max(issue, tensor) + lines + sums) / clock,
        "L2": (tiles * steps * 2 * (BLOCK_M + BLOCK_N) * BLOCK_K + out) / device["l2"],
        "memory": (2 * x + 2 * o * c * taps + out) / device["memory"],
    }
    narrow = 6 * (o * c * taps + (x if x_bytes == 4 else 0)) / device["memory"]
    least = max(2 * pixels * o * c * taps / PRACTICAL, (2 * x + 2 * out / y_bytes) / device["memory"])
    return bound, narrow, least


def attention(nvcc, nvdisasm, device, images, t, heads, width=64):
    """Seconds of a layer's attention by bound, of heads 64 wide, without mask and table; issue slots of a tile are counted in
    attention_tiles.cu, with both of its ways to copy a tile."""
    found = loops(nvcc, nvdisasm, "attention_tiles", "attention_tiles_64_bf16", ["table", "mask || key + BLOCK > t"])
    tile = min((loop for loop in found if loop["HMMA"] == 64), key=lambda loop: loop.total())
    blocks, groups = math.ceil(t / 64), math.ceil(t / 16)  # of queries; of queries of a warp, and of keys
    tiles = images * heads * groups * groups / 4  # of a warp
    schedulers = 4 * device["sms"] * device["clock"]
    copied = images * heads * 2 * width * (2 * t + 2 * t * blocks)  # bytes of q and o, and of k and v for each block
    return tile.total(), {
        "issue": tiles * tile.total() / EFFICIENCY / schedulers,
        "tensor": tiles * tile["HMMA"] * 4096 / (PORTABLE * device["tensor"] / 4) / schedulers,
        "powers": tiles * tile["MUFU"] * 8 / schedulers,  # 4 lanes a clock
        "L2": copied / device["l2"],
        "memory": images * heads * 2 * width * 4 * t / device["memory"],
    }


def resnet50(n):
    """Its layers after the stem: name, pixels, c, o, taps, residual, GELU, values of x, bytes of x and of y."""
    side, c = 56, 64
    for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            out = side // stride
            yield f"layer{stage + 1}.{block}.conv1", n * side * side, c, width, 1, False, False, None, (2, 2)
            yield f"layer{stage + 1}.{block}.conv2", n * out * out, width, width, 9, False, False, n * side * side * width, (2, 2)
            yield f"layer{stage + 1}.{block}.conv3", n * out * out, width, 4 * width, 1, True, False, None, (2, 2)
            if not block:
                yield f"layer{stage + 1}.{block}.downsample", n * out * out, c, 4 * width, 1, False, False, n * side * side * c, (2, 2)
            side, c = out, 4 * width
    yield "fc", n, 2048, 1000, 1, False, False, None, (2, 4)


def vit_b16(n):
    """Likewise, after the patches: the residual stream is f32."""
    tokens = n * 197
    for block in range(12):
        yield f"block{block}.qkv", tokens, 768, 2304, 1, False, False, None, (2, 2)
        yield f"block{block}.proj", tokens, 768, 768, 1, True, False, None, (2, 4)
        yield f"block{block}.fc1", tokens, 768, 3072, 1, False, True, None, (2, 2)
        yield f"block{block}.fc2", tokens, 3072, 768, 1, True, False, None, (2, 4)
    yield "head", n, 768, 1000, 1, False, False, None, (2, 4)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--nvcc", default="nvcc")
    arguments.add_argument("--nvdisasm", default="nvdisasm")
    arguments.add_argument("--device", default="h200", choices=DEVICES)
    arguments.add_argument("--copies", type=int, default=1000)
    arguments.add_argument("--layers", action="store_true", help="print every layer")
    arguments.add_argument("--f32", action="store_true", help="with all values in f32")
    given = arguments.parse_args()
    counts, device = {bytes: Counts(given.nvcc, given.nvdisasm, bytes) for bytes in (2, 4)}, DEVICES[given.device]
    for bytes, each in counts.items():
        print(f"issue slots of a warp, results of {bytes} bytes: {each.step} a step of {BLOCK_K}, {each.line} for {each.channels} channels, {each.gelu} more with GELU, {each.sum:.1f} a summed row")
    print("| affine layers of | products, ms | rounding to 16 bits, ms | predicted, ms | floor, ms | bound by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name, net in [("ResNet-50, 224², after the stem", resnet50), ("ViT-B/16, 224², after the patches", vit_b16)]:
        products = rounding = floor = 0.0
        by = Counter()
        for layer, *sizes, types in net(given.copies):
            bound, narrow, least = affine(counts, device, *sizes, (4, 4) if given.f32 else types)
            which = max(bound, key=bound.get)
            products, rounding, floor = products + bound[which], rounding + narrow, floor + least
            by[which] += bound[which]
            if given.layers:
                shown = ", ".join(f"{key} {1e3 * value:.2f}" for key, value in bound.items())
                print(f"    {layer}: {shown}; rounding {1e3 * narrow:.2f}; floor {1e3 * least:.2f}")
        shares = ", ".join(f"{key} {value / products:.0%}" for key, value in by.most_common())
        print(f"| {name} | {1e3 * products:.1f} | {1e3 * rounding:.1f} | {1e3 * (products + rounding):.1f} | {1e3 * floor:.1f} | {shares} |")
    print("| attention, K and V on chip | slots of a tile | predicted, ms | bound by | others, ms |")
    print("| --- | --- | --- | --- | --- |")
    for name, layers, tokens, heads in [("ViT-B/16, 224²", 12, 197, 12), ("ViT-L/16, 384²", 24, 577, 16)]:
        slots, bound = attention(given.nvcc, given.nvdisasm, device, given.copies, tokens, heads)
        which = max(bound, key=bound.get)
        others = ", ".join(f"{key} {1e3 * layers * value:.1f}" for key, value in bound.items() if key != which)
        print(f"| {name} | {slots} | {1e3 * layers * bound[which]:.1f} | {which} | {others} |")


if __name__ == "__main__":
    main()
