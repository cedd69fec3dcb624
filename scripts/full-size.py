"""Networks of torchvision, timm and transformers at their full size, through the program: scripts/full-size.py SCRUBJAY [NAME..]

Makes each with random weights, saves it as a training checkpoint (torchvision) or as a folder with a config, and
prints how far the program's logits of two images are from PyTorch's in f64. Needs torch, torchvision, timm,
transformers, safetensors.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
import torch
import torchvision
import transformers
from safetensors.torch import load_file, save_file

SIDE = 96
SIDES = {"swin": 224, "mixer": 224, "clip": 224}  # of networks with words in their names that take one size
TORCHVISION = """alexnet densenet121 mobilenet_v2 mobilenet_v3_large mobilenet_v3_small efficientnet_b0 efficientnet_b5
    regnet_y_400mf regnet_x_400mf convnext_tiny resnext50_32x4d vgg11_bn swin_t swin_s""".split()
TIMM = """mobilenetv2_100 mobilenetv2_140 mobilenetv3_large_100 mobilenetv3_small_100 efficientnet_b0 efficientnet_b3
    regnety_004 regnetx_004 convnext_tiny convnext_atto densenet121
    efficientnetv2_s efficientnetv2_rw_t efficientnetv2_rw_s tf_efficientnetv2_b0 tf_efficientnetv2_b3 tf_efficientnetv2_s
    tf_efficientnet_b0 tf_efficientnet_b4 tf_mobilenetv3_large_100 tf_mobilenetv3_small_075 swin_tiny_patch4_window7_224
    swin_s3_tiny_224 mixer_s16_224 mixer_b16_224 vit_base_patch32_clip_224 vit_base_patch32_clip_quickgelu_224""".split()
HUGGING_FACE = {
    "swin": (transformers.SwinConfig, transformers.SwinForImageClassification),
    "clip": (transformers.CLIPConfig, transformers.CLIPForImageClassification),
}


def made(network):
    """With statistics of norms that are not those of a new network."""
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.7, 1.3)
    for parameter in network.parameters():
        if parameter.dim() == 2 and not parameter.any():  # a head that begins at zero
            torch.nn.init.normal_(parameter, 0, 0.02)
    return network.eval()


def checkpoint(network, _name, directory):
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, directory / "m.pth.tar")
    return directory / "m.pth.tar"


def folder(network, name, directory):
    torch.save(network.state_dict(), directory / "pytorch_model.bin")
    (directory / "config.json").write_text(json.dumps({"architecture": name, "num_classes": 1000}))
    return directory


def saved(network, _name, directory):
    network.save_pretrained(directory)
    return directory


def side_of(name):
    return next((side for word, side in SIDES.items() if word in name), SIDE)


def check(program, name, network, save):
    with tempfile.TemporaryDirectory() as directory:
        directory = Path(directory)
        x = torch.randn(2, 3, side_of(name), side_of(name))
        save_file({"x": x, "y": torch.tensor([0, 1])}, directory / "in.safetensors")
        files = ["--input", directory / "in.safetensors", "--out", directory / "out.safetensors"]
        command = [program, "observe", "--device", "cpu", "--model", save(network, name, directory), *files]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"refused: {done.stderr.strip()}"
        found = load_file(directory / "out.safetensors")["logits"].double()
        with torch.no_grad():
            expected = network.double()(x.double())
            expected = getattr(expected, "logits", expected)
        return f"off by {((found - expected).norm() / expected.norm()).item():.1e}"


program, chosen = sys.argv[1], sys.argv[2:]
torch.manual_seed(0)
torch.set_num_threads(1)
for library, names in (("torchvision", TORCHVISION), ("timm", TIMM)):
    for name in names:
        if not chosen or name in chosen:
            if library == "timm":
                said = check(program, name, made(timm.create_model(name, num_classes=1000)), folder)
            else:
                said = check(program, name, made(getattr(torchvision.models, name)()), checkpoint)
            print(f"{library} {name}: {said}", flush=True)
for name, (config, network) in HUGGING_FACE.items():
    if not chosen or f"transformers-{name}" in chosen:
        sizes = config(attn_implementation="eager")
        print(f"transformers {name}: {check(program, name, made(network(sizes)), saved)}", flush=True)
