"""Small pictures for the tests, and what Pillow, torchvision, timm and transformers make of them.

Writes to tests/data/pictures one file for each form of a picture, `expected.safetensors` with the pixels [h, w, 3] that
Pillow's convert("RGB") gives for each (and the upper eight bits for 16-bit grey, which Pillow cuts off),
`resized.safetensors` with pictures resized by Pillow, and `configs.json` with configs of models, for which
`inputs.safetensors` has what timm and transformers make of rgb.png, [h, w, 3], and `presets.json` the sizes of
torchvision's weights. The pictures are made here. tests/data/sets gets small files of containers: pickles of CIFAR, .npz, a
tar as of webdataset, and parquet as of Hugging Face's `datasets`.
"""

import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

TARGET = Path(__file__).parent.parent / "tests/data/pictures"
W, H = 19, 13


def picture():
    """A smooth picture with some noise and a sharp edge."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[0:H, 0:W]
    planes = [128 + 100 * np.sin(x / 3 + 1), 20 * y + 3 * x, 255 * (x > 9) * (y > 4) + 10 * y]
    noisy = np.stack(planes, -1) + random.normal(0, 12, (H, W, 3))
    return Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8))


def png(kind, bits, rows, extra=b""):
    """A PNG of a kind that Pillow does not write."""
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    head = struct.pack(">IIBBBBB", W, H, bits, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def files():
    """The name of each file and its bytes."""
    rgb = picture()
    grey, alpha = rgb.convert("L"), rgb.convert("RGBA")
    alpha.putalpha(grey)

    def saved(image, name, **options):
        out = io.BytesIO()
        image.save(out, {"tif": "TIFF", "jpg": "JPEG"}.get(name.split(".")[-1]) or Image.registered_extensions()["." + name.split(".")[-1]], **options)
        return name, out.getvalue()

    yield saved(rgb, "rgb.png")
    yield saved(grey, "grey.png")
    yield saved(rgb.quantize(16), "palette.png")
    yield saved(rgb.quantize(16), "palette-alpha.png", transparency=3)
    yield saved(grey.convert("1"), "bits1.png")
    fours = np.array(grey) // 16
    padded = np.pad(fours, ((0, 0), (0, W % 2)))
    yield "bits4.png", png(0, 4, [bytes(row[::2] << 4 | row[1::2]) for row in padded])
    yield saved(rgb.convert("LA"), "grey-alpha.png")
    yield saved(alpha, "alpha.png")
    wide = np.array(grey).astype(np.uint16) * 256 + np.arange(W, dtype=np.uint16) * 13
    yield "grey16.png", png(0, 16, [row.astype(">u2").tobytes() for row in wide])
    colours = np.array(rgb).astype(np.uint16) * 256 + 77
    yield "rgb16.png", png(2, 16, [row.astype(">u2").tobytes() for row in colours])
    yield saved(rgb, "turned.png", exif=turned())
    yield saved(rgb, "rgb.bmp")
    yield saved(grey, "grey.bmp")
    yield saved(rgb.quantize(16), "palette.bmp")
    yield saved(rgb, "rgb.tif")
    yield saved(rgb, "lzw.tif", compression="tiff_lzw")
    yield saved(Image.fromarray(wide), "grey16.tif")
    yield saved(rgb.convert("CMYK"), "cmyk.tif")
    yield saved(grey, "grey.pgm")
    yield saved(rgb, "rgb.ppm")
    yield "max15.pgm", b"P5\n%d %d\n15\n" % (W, H) + fours.tobytes()
    yield "ascii.pgm", b"P2\n# made here\n%d %d\n255\n" % (W, H) + b" ".join(b"%d" % v for v in np.array(grey).ravel())
    yield saved(rgb, "lossless.webp", lossless=True)
    yield saved(rgb, "lossy.webp", quality=80)
    yield saved(rgb, "full.jpg", quality=90, subsampling=0)
    yield saved(rgb, "half.jpg", quality=90, subsampling=2)
    yield saved(rgb, "progressive.jpg", quality=75, progressive=True)
    yield saved(grey, "grey.jpg", quality=90)
    yield saved(rgb.convert("CMYK"), "cmyk.jpg", quality=90)
    yield saved(rgb, "turned.jpg", quality=90, subsampling=0, exif=turned())


def turned():
    exif = Image.Exif()
    exif[0x112] = 6
    return exif


def main():
    TARGET.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, data in files():
        (TARGET / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        if name.startswith("grey16"):
            grey = (np.array(image).astype(np.uint32) >> 8).astype(np.uint8)
            expected[name] = np.repeat(grey[:, :, None], 3, 2)
        else:
            expected[name] = np.array(image.convert("RGB"))
    rgb = Image.open(TARGET / "rgb.png")
    expected["grey of rgb.png"] = np.array(rgb.convert("L"))[:, :, None]
    save_file({name: np.ascontiguousarray(value) for name, value in expected.items()}, TARGET / "expected.safetensors")
    resized = {}
    for mode in ["RGB", "L"]:
        for filter in Image.Resampling:
            for w, h in [(31, 23), (7, 5), (30, 4), (19, 6), (5, 13)]:
                value = np.array(rgb.convert(mode).resize((w, h), filter)).reshape(h, w, -1)
                resized[f"{mode} {filter.name.lower()} {h}x{w}"] = value
    save_file(resized, TARGET / "resized.safetensors")


def configs():
    """Configs of models, and the inputs that their library makes."""
    import timm.data
    import transformers

    rgb = Image.open(TARGET / "rgb.png").convert("RGB")
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    timms = {
        "timm": dict(input_size=[3, 11, 11], crop_pct=0.9, interpolation="bicubic", crop_mode="center"),
        "timm-default": dict(input_size=[3, 9, 9], interpolation="bilinear"),
        "timm-squash": dict(input_size=[3, 10, 7], crop_pct=0.95, interpolation="bicubic", crop_mode="squash"),
    }
    for name, own in timms.items():
        own = own | dict(mean=mean, std=std)
        transform = timm.data.create_transform(**(own | dict(input_size=tuple(own["input_size"]))))
        yield name, {"config": {"pretrained_cfg": own}}, transform(rgb).permute(1, 2, 0).numpy()
    half = dict(image_mean=[0.5] * 3, image_std=[0.5] * 3, do_normalize=True)
    processors = {
        "vit": ("ViTImageProcessor", dict(size=dict(height=11, width=9), resample=2, do_resize=True, **half)),
        "vit-plain": ("ViTImageProcessor", dict(size=12, resample=3, do_resize=True, do_normalize=False)),
        "clip": ("CLIPImageProcessor", dict(size=dict(shortest_edge=12), crop_size=dict(height=9, width=9), resample=3,
                 do_resize=True, do_center_crop=True, do_convert_rgb=True, image_mean=mean, image_std=std)),
        "convnext": ("ConvNextImageProcessor", dict(size=dict(shortest_edge=10), crop_pct=0.875, resample=3, **half)),
        "unscaled": ("ViTImageProcessor", dict(size=dict(height=8, width=8), resample=1, do_rescale=False,
                     image_mean=[127.5] * 3, image_std=[127.5] * 3, do_normalize=True)),
        "factor": ("ViTImageProcessor", dict(size=dict(height=8, width=8), resample=4, rescale_factor=1 / 127.5,
                   image_mean=[1.0] * 3, image_std=[1.0] * 3, do_normalize=True)),
    }
    for name, (kind, own) in processors.items():
        processor = getattr(transformers, kind + "Pil")(**own)
        value = np.asarray(processor(rgb, return_tensors="np")["pixel_values"][0])
        yield name, {"preprocessor": own | {"image_processor_type": kind}}, value.transpose(1, 2, 0)


def presets():
    """The sizes of torchvision's weights."""
    import torchvision.models as models

    families = ["alexnet", "convnext", "densenet", "efficientnet_b", "mobilenet", "regnet", "resne", "vgg", "vit_", "wide"]
    for name in models.list_models(module=models):
        if any(name.startswith(family) for family in families):
            for weights in models.get_model_weights(name):
                if "IMAGENET1K" in weights.name and weights.name != "IMAGENET1K_FEATURES":
                    own = weights.transforms()
                    yield [name, weights.name, own.resize_size[0], own.crop_size[0], own.interpolation.value]


def record_configs():
    found = list(configs())
    inputs = {name: np.ascontiguousarray(value.astype(np.float32)) for name, _, value in found}
    save_file(inputs, TARGET / "inputs.safetensors")
    (TARGET / "configs.json").write_text(json.dumps({name: config for name, config, _ in found}, indent=1))
    lines = [json.dumps(row) for row in presets()]
    (TARGET / "presets.json").write_text("[" + ",\n".join(lines) + "]")


def python2(data, labels):
    """A batch as Python 2 pickled it, with strings of bytes."""
    text = lambda value: b"U" + bytes([len(value)]) + value
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85" + text(b"b") + b"tR"
    dtype = b"cnumpy\ndtype\n(" + text(b"u1") + b"K\0K\x01tR(K\x03" + text(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tb"
    raw = data.tobytes()
    state = b"(K\x01K" + bytes([len(data)]) + b"M\0\x0c\x86" + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + state + text(b"labels") + numbers + b"u."


def sets():
    """Containers of a few images."""
    import pickle
    import tarfile

    target = TARGET.parent / "sets"
    random = np.random.default_rng(3)
    ten, hundred = target / "ten/cifar-10-batches-py", target / "hundred/cifar-100-python"
    for folder in [ten, hundred, target / "shards", target / "hub/data"]:
        folder.mkdir(parents=True, exist_ok=True)
    data = (np.arange(3072) * 7 % 256).astype(np.uint8)[None] + np.arange(4, dtype=np.uint8)[:, None] * 50
    (ten / "data_batch_1").write_bytes(python2(data[:1], [3]))
    (ten / "data_batch_2").write_bytes(pickle.dumps({b"data": data[1:2], b"labels": [9], b"filenames": [b"a.png"]}, 4))
    (ten / "test_batch").write_bytes(pickle.dumps({b"data": data[2:3], b"labels": [0]}, 2))
    (ten / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"c%d" % i for i in range(10)]}, 2))
    (hundred / "train").write_bytes(pickle.dumps({"data": data[3:], "fine_labels": np.array([77]), "coarse_labels": [19]}, 5))
    (hundred / "meta").write_bytes(pickle.dumps({"fine_label_names": [f"f{i}" for i in range(100)], "coarse_label_names": [f"g{i}" for i in range(20)]}, 4))
    images = random.integers(0, 256, (3, 5, 4), dtype=np.uint8)
    np.savez_compressed(target / "keras.npz", x_train=images, y_train=np.array([2, 0, 1], dtype=np.uint8), x_test=images[:1], y_test=np.array([1], dtype=np.uint8))
    np.savez(target / "fortran.npz", images=np.asfortranarray(images), labels=np.array([[2], [0], [1]], dtype=">i8"))
    with tarfile.open(target / "shards/train-000.tar", "w") as tar:
        for name, value in [("a/1.jpg", "full.jpg"), ("a/1.cls", b"4"), ("a/2.png", "rgb.png"), ("a/2.json", b'{"label": 1}'), ("a/3.txt", b"no sample")]:
            value = (TARGET / value).read_bytes() if isinstance(value, str) else value
            entry = tarfile.TarInfo("./" + name)
            entry.size = len(value)
            tar.addfile(entry, io.BytesIO(value))
    import pyarrow
    import pyarrow.parquet

    names = ["turned.jpg", "rgb.png"]
    rows = [{"bytes": (TARGET / name).read_bytes(), "path": name} for name in names]
    table = pyarrow.table({"image": rows, "label": pyarrow.array([1, 0], pyarrow.int64())})
    about = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pyarrow.parquet.write_table(table, target / "hub/data/train-00000-of-00001.parquet")
    pyarrow.parquet.write_table(table.slice(1), target / "hub/data/test-00000-of-00001.parquet")


main()
record_configs()
sets()
