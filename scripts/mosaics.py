#!/usr/bin/env python3
"""Turns mosaics of CIFAR-10 images into a file that scrubjay reads.

    python3 scripts/mosaics.py OUT.safetensors LABELS.u8 MOSAIC.webp [MOSAIC.webp ..]

A mosaic is a picture of 1,000 tiles of 32 x 32 pixels, 20 rows of 50, row-major; LABELS holds one byte an image, in
the order of all tiles of all mosaics. OUT gets x, bytes [n, 3, 32, 32], and y, i64 [n]. Needs numpy, pillow and
safetensors.
"""
import sys

import numpy as np
from PIL import Image
from safetensors.numpy import save_file


def tiles(path):
    picture = np.asarray(Image.open(path).convert("RGB"))
    rows, columns = picture.shape[0] // 32, picture.shape[1] // 32
    grid = picture.reshape(rows, 32, columns, 32, 3)
    return grid.transpose(0, 2, 4, 1, 3).reshape(rows * columns, 3, 32, 32)


def main(out, labels, *mosaics):
    x = np.concatenate([tiles(path) for path in mosaics])
    y = np.fromfile(labels, dtype=np.uint8)[: len(x)].astype(np.int64)
    if len(y) != len(x):
        sys.exit(f"{labels}: {len(y)} labels for {len(x)} images")
    save_file({"x": np.ascontiguousarray(x), "y": y}, out)
    print(f"{out}: {len(x)} images")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
