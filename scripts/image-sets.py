"""Small image sets for the tests, written by Hugging Face's `datasets` and by scipy, and what they read of them.

Writes to tests/data/sets/datasets: `animals/default`, as the hub converts a set to parquet (a folder for each part, two
shards of the training part); `several.parquet` with several labels for each picture and a further column; `breeds.parquet`
with columns of other names; `paths.parquet` with paths in place of pictures; `withheld.parquet` with a label of -1, and
`plain.parquet` with one where no classes are named; and `expected.safetensors` with the pixels [n, h, w, c] of `animals`, as
`datasets` decodes them. tests/data/sets/svhn gets files of MATLAB as SVHN has them: `train_32x32.mat` compressed,
`test_32x32.mat` not, `big.mat` with the other order of bytes.
"""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Sequence, Value, load_dataset
from datasets.table import embed_table_storage
from PIL import Image as Picture
from safetensors.numpy import save_file
from scipy.io import loadmat, savemat

TARGET = Path(__file__).parent.parent / "tests/data/sets/datasets"
CLASSES = ClassLabel(names=["cat", "dog", "emu"])


def main():
    shutil.rmtree(TARGET, ignore_errors=True)
    folder = TARGET / "animals/default"
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    os.chdir(TARGET)  # so that paths in a table are short
    random = np.random.default_rng(5)
    pictures = [Picture.fromarray(random.integers(0, 256, (5, 4, 3), dtype=np.uint8)) for _ in range(6)]
    files = [Path(f"{i}.png") for i in range(6)]
    for picture, file in zip(pictures, files):
        picture.save(file)

    def write(name, embed=True, **columns):
        values = {key: value for key, (value, _) in columns.items()}
        table = Dataset.from_dict(values, Features({key: kind for key, (_, kind) in columns.items()}))
        if embed:
            table = table.with_format("arrow").map(embed_table_storage, batched=True)
        table.to_parquet(TARGET / name)

    names = [str(file) for file in files]
    for part, at in [("train/0000", slice(0, 2)), ("train/0001", slice(2, 4)), ("test/0000", slice(4, 6))]:
        write(f"animals/default/{part}.parquet", image=(pictures[at], Image()), label=([1, 0, 0, 1, 2, 0][at], CLASSES))
    site = ["berlin", "oslo", None, "oslo"]
    write("several.parquet", image=(names[:4], Image()), labels=([[1], [0, 1], [], [0]], Sequence(CLASSES)), site=(site, Value("string")))
    write("breeds.parquet", photo=(names[:2], Image()), year=([2019, 2020], Value("int32")), breed=([2, 0], CLASSES))
    write("paths.parquet", embed=False, image=(names[:2], Image()), label=([0, 1], CLASSES))
    write("withheld.parquet", image=(names[:2], Image()), label=([0, -1], CLASSES))
    write("plain.parquet", image=(names[:2], Image()), label=([0, -1], Value("int64")))
    for file in files:
        file.unlink()
    decoded = load_dataset("parquet", data_files={part: str(folder / part / "*.parquet") for part in ["train", "test"]})
    expected = {part: np.stack([np.asarray(row["image"]) for row in decoded[part]]) for part in ["train", "test"]}
    expected |= {f"{part}.labels": np.array(decoded[part]["label"]) for part in ["train", "test"]}
    save_file(expected, TARGET / "expected.safetensors")


def svhn():
    target = TARGET.parent / "svhn"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    random = np.random.default_rng(6)
    x, y = random.integers(0, 256, (5, 4, 3, 6), dtype=np.uint8), np.array([[1], [10], [9], [2], [10], [5]], dtype=np.uint8)
    savemat(target / "train_32x32.mat", {"X": x, "y": y}, do_compression=True)
    savemat(target / "test_32x32.mat", {"X": x[..., :3], "y": y[:3].astype(float)})

    def element(kind, content):
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    def array(name, kind, number, values):
        parts = [element(6, struct.pack(">II", kind, 0)), element(5, struct.pack(f">{values.ndim}i", *values.shape))]
        return element(14, b"".join([*parts, element(1, name), element(number, values.tobytes("F"))]))

    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\1\0MI"
    (target / "big.mat").write_bytes(head + array(b"X", 9, 2, x) + array(b"y", 10, 3, y.astype(">i2")))
    expected = {}
    for name in ["train_32x32", "test_32x32", "big"]:
        read = loadmat(target / f"{name}.mat")
        expected[name] = np.ascontiguousarray(read["X"].transpose(3, 0, 1, 2))
        expected[f"{name}.labels"] = read["y"].ravel().astype(np.int64) % 10
    save_file(expected, target / "expected.safetensors")


main()
svhn()
