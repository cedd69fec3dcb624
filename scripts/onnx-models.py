"""Networks of torchvision and timm as ONNX files, through the program: scripts/onnx-models.py SCRUBJAY [old|new] [NAME..]

Exports each with random weights by both of PyTorch's exporters, and prints how far the program's logits of an image, and
onnxruntime's, are from PyTorch's in f64. Needs torch, torchvision, timm, onnx, onnxruntime, safetensors, and for the newer exporter onnxscript.
"""

import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy
import onnxruntime
import timm
import torch
import torchvision
from safetensors.numpy import load_file, save_file

FIXED = ("alexnet", "vgg", "vit", "deit", "swin", "mixer", "resmlp", "fastvit")  # which take 224 pixels a side
SIDE = 96

TORCHVISION = """alexnet vgg11 vgg11_bn squeezenet1_1 resnet18 resnet50 resnext50_32x4d wide_resnet50_2 densenet121
    googlenet mobilenet_v2 mobilenet_v3_large mobilenet_v3_small mnasnet0_5 shufflenet_v2_x0_5 efficientnet_b0
    efficientnet_v2_s regnet_y_400mf regnet_x_400mf convnext_tiny vit_b_16 swin_t""".split()
TIMM = """resnet18 resnet26d resnetv2_50 seresnet18 densenet121 mobilenetv2_100 mobilenetv3_small_100 efficientnet_b0
    efficientnetv2_rw_t tf_efficientnet_b0 regnety_004 convnext_atto convnextv2_atto vit_tiny_patch16_224
    deit_tiny_distilled_patch16_224 vit_small_patch14_dinov2 vit_small_patch14_reg4_dinov2 mixer_s32_224 dla34 ghostnet_100
    hrnet_w18_small vgg11 xception41 swin_tiny_patch4_window7_224 mixer_b16_224 resmlp_12_224 convmixer_768_32 poolformer_s12
    fastvit_t8 resnet50_gn resnetv2_50d_gn mobileone_s0 repvgg_a0 inception_v3 mobilenetv4_conv_small deit3_small_patch16_224
    gernet_s""".split()


def made(network):
    """With norms and biases that are not those of a new network: exporters store equal ones once, and heads may be zeros."""
    for parameter in network.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
        elif not parameter.any():
            parameter.data.normal_(0, 0.02)
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        if name.endswith("running_var"):
            buffer.uniform_(0.7, 1.3)
    return network.eval()


def torchvision_network(name):
    extra = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    return torchvision.models.get_model(name, **extra)


def timm_network(name):
    return timm.create_model(name, **({"img_size": 224} if "dinov2" in name else {}))


def exported(network, x, path, newer, opset):
    options = {"input_names": ["input"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if newer:
            torch.onnx.export(network, (x,), path, dynamo=True, verbose=False, opset_version=max(opset, 18), **options)
        else:
            axes = {"input": {0: "batch"}, "logits": {0: "batch"}}
            torch.onnx.export(network, (x,), path, dynamo=False, opset_version=opset, dynamic_axes=axes, **options)


def check(program, make, name, newer, opset=17):
    torch.manual_seed(1)
    network = made(make(name))
    side = 224 if name.startswith(FIXED) else SIDE
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model, x = folder / "m.onnx", torch.randn(1, 3, side, side)
        try:
            exported(network, x, str(model), newer, opset)
        except Exception as error:  # an exporter's refusal is not ours
            return f"not exported: {str(error).strip().splitlines()[0][:100]}"
        with torch.no_grad():
            exact = network.double()(x.double()).numpy()
        judge = onnxruntime.InferenceSession(str(model)).run(None, {"input": x.numpy()})[0]
        save_file({"x": x.numpy(), "y": numpy.array([1])}, folder / "in.safetensors")
        files = ["--input", folder / "in.safetensors", "--out", folder / "out.safetensors"]
        command = [program, "observe", "--device", "cpu", "--model", model, *files]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            return f"refused: {done.stderr.strip().splitlines()[-1]}"
        found = load_file(folder / "out.safetensors")["logits"]
        off = [numpy.linalg.norm(logits - exact) / numpy.linalg.norm(exact) for logits in (found, judge)]
        return f"off by {off[0]:.1e} (onnxruntime by {off[1]:.1e})"


def main():
    program, chosen = sys.argv[1], [name for name in sys.argv[2:] if name not in ("old", "new")]
    exporters = [name == "new" for name in sys.argv[2:] if name in ("old", "new")] or [False, True]
    for make, names in ((torchvision_network, TORCHVISION), (timm_network, TIMM)):
        for name in names:
            library = make.__name__.split("_")[0]
            if not chosen or name in chosen or f"{library}/{name}" in chosen:
                for newer in exporters:
                    exporter = "new" if newer else "old"
                    print(f"{library:<12}{name:<34}{exporter:<5}", check(program, make, name, newer), flush=True)


if __name__ == "__main__":
    main()
