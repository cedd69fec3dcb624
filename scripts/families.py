"""Small networks of the families, recorded for the tests: scripts/families.py [NAME..]

Makes each network from its library's own code, with seeded random weights and few channels, and records in
tests/data/nets what PyTorch computes with it in f64: logits, losses, the activation of every unit, the gradient and a
Hessian product (by double backward) on a block, norm and signed sum of every parameter's part of both, and the error of
PyTorch's own f32 run. Weights are rounded to f16, in which they are stored. Needs torch, torchvision, timm, safetensors.
"""

import copy
import json
import math
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

TARGET = Path(__file__).parent.parent / "tests/data/nets"


# --- networks without a library


class PreActBlock(nn.Module):
    """kuangliu's; `stride_last` as in meliketoy's wide ResNet, whose filters have biases and whose shortcut reads x itself."""

    def __init__(self, c, o, stride, wide=False):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, o, 3, 1 if wide else stride, 1, bias=wide)
        self.bn2 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, stride if wide else 1, 1, bias=wide)
        self.wide = wide
        if stride != 1 or c != o:
            self.shortcut = nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=wide))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        across = self.shortcut(x if self.wide else out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + across


class PreActBottleneck(nn.Module):
    def __init__(self, c, o, stride):
        super().__init__()
        inner = o // 4
        self.bn1 = nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, o, 1, bias=False)
        if stride != 1 or c != o:
            self.shortcut = nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        across = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return self.conv3(F.relu(self.bn3(out))) + across


class PreAct(nn.Module):
    def __init__(self, block, widths, blocks, wide=False):
        super().__init__()
        self.wide = wide
        c = 6
        self.conv1 = nn.Conv2d(3, c, 3, 1, 1, bias=wide)
        for stage, width in enumerate(widths):
            layers = []
            for i in range(blocks):
                layers.append(block(c, width, 2 if i == 0 and stage > 0 else 1))
                c = width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        if wide:
            self.bn1 = nn.BatchNorm2d(c)
        self.linear = nn.Linear(c, 5)
        self.stages = len(widths)

    def forward(self, x):
        x = self.conv1(x)
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        if self.wide:
            x = F.relu(self.bn1(x))
        return self.linear(x.mean((2, 3)))


class WideBlock(nn.Module):
    """xternalz's wide ResNet."""

    def __init__(self, c, o, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(c)
        self.conv1 = nn.Conv2d(c, o, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.equal = c == o
        self.convShortcut = None if self.equal else nn.Conv2d(c, o, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        if not self.equal:
            x = out
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return torch.add(x if self.equal else self.convShortcut(x), out)


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        c = 4
        self.conv1 = nn.Conv2d(3, c, 3, 1, 1, bias=False)
        for stage, width in enumerate((8, 12, 16)):
            holder = nn.Module()
            holder.layer = nn.Sequential(WideBlock(c, width, 2 if stage else 1), WideBlock(width, width, 1))
            setattr(self, f"block{stage + 1}", holder)
            c = width
        self.bn1 = nn.BatchNorm2d(c)
        self.fc = nn.Linear(c, 5)

    def forward(self, x):
        x = self.conv1(x)
        for stage in (1, 2, 3):
            x = getattr(self, f"block{stage}").layer(x)
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class Features(nn.Module):
    """AlexNet and VGGs: features, an optional adaptive pool, a classifier."""

    def __init__(self, features, grid, classifier):
        super().__init__()
        self.features = nn.Sequential(*features)
        self.grid = grid
        self.classifier = classifier

    def forward(self, x):
        x = self.features(x)
        if self.grid:
            x = F.adaptive_avg_pool2d(x, self.grid)
        return self.classifier(x.flatten(1))


def alexnet():
    widths = (4, 6, 8, 6, 8)
    layers, c = [], 3
    for i, (o, (k, stride, pad)) in enumerate(zip(widths, ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)))):
        layers += [nn.Conv2d(c, o, k, stride, pad), nn.ReLU()]
        layers += [nn.MaxPool2d(3, 2)] if i in (0, 1, 4) else []
        c = o
    head = nn.Sequential(
        nn.Dropout(), nn.Linear(c * 36, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 5)
    )
    return Features(layers, (6, 6), head)


def vgg_features(plan, norm):
    layers, c = [], 3
    for o in plan:
        if o == "M":
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(c, o, 3, 1, 1)] + ([nn.BatchNorm2d(o)] if norm else []) + [nn.ReLU()]
            c = o
    return layers


VGG11 = (4, "M", 6, "M", 8, 8, "M", 8, 6, "M", 8, 8, "M")


def vgg_kuangliu():
    return Features(vgg_features(VGG11, True) + [nn.AvgPool2d(1, 1)], None, nn.Linear(8, 5))


def vgg_dropout():
    head = nn.Sequential(
        nn.Dropout(), nn.Linear(8, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 9), nn.ReLU(), nn.Linear(9, 5)
    )
    return Features(vgg_features(VGG11, False), None, head)


class VggFace(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = (2, 2, 3, 3, 3)
        c = 3
        for b, (count, width) in enumerate(zip(self.blocks, (4, 6, 6, 8, 8))):
            for i in range(count):
                setattr(self, f"conv_{b + 1}_{i + 1}", nn.Conv2d(c, width, 3, 1, 1))
                c = width
        self.fc6 = nn.Linear(c * 4, 12)
        self.fc7 = nn.Linear(12, 10)
        self.fc8 = nn.Linear(10, 5)

    def forward(self, x):
        for b, count in enumerate(self.blocks):
            for i in range(count):
                x = F.relu(getattr(self, f"conv_{b + 1}_{i + 1}")(x))
            x = F.max_pool2d(x, 2, 2)
        x = F.relu(self.fc6(x.flatten(1)))
        return self.fc8(F.relu(self.fc7(x)))


class CifarDense(nn.Module):
    """kuangliu's DenseNet: new channels come before the old ones."""

    class Layer(nn.Module):
        def __init__(self, c, growth):
            super().__init__()
            self.bn1 = nn.BatchNorm2d(c)
            self.conv1 = nn.Conv2d(c, 2 * growth, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(2 * growth)
            self.conv2 = nn.Conv2d(2 * growth, growth, 3, 1, 1, bias=False)

        def forward(self, x):
            out = self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
            return torch.cat([out, x], 1)

    class Transition(nn.Module):
        def __init__(self, c, o):
            super().__init__()
            self.bn = nn.BatchNorm2d(c)
            self.conv = nn.Conv2d(c, o, 1, bias=False)

        def forward(self, x):
            return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)

    def __init__(self, growth=4, blocks=(2, 2, 2, 2)):
        super().__init__()
        c = 2 * growth
        self.conv1 = nn.Conv2d(3, c, 3, 1, 1, bias=False)
        for i, count in enumerate(blocks):
            layers = []
            for _ in range(count):
                layers.append(CifarDense.Layer(c, growth))
                c += growth
            setattr(self, f"dense{i + 1}", nn.Sequential(*layers))
            if i + 1 < len(blocks):
                setattr(self, f"trans{i + 1}", CifarDense.Transition(c, c // 2))
                c //= 2
        self.bn = nn.BatchNorm2d(c)
        self.linear = nn.Linear(c, 5)

    def forward(self, x):
        x = self.trans1(self.dense1(self.conv1(x)))
        x = self.trans3(self.dense3(self.trans2(self.dense2(x))))
        return self.linear(F.relu(self.bn(self.dense4(x))).mean((2, 3)))


def conv_bn(c, o, k=1, stride=1, groups=1, norm=nn.BatchNorm2d):
    """A filter and its norm under torchreid's names; a nonlinearity is the caller's."""
    conv = nn.Conv2d(c, o, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm(o)) if norm else OrderedDict(conv=conv))


InstanceNorm = partial(nn.InstanceNorm2d, affine=True)


class Light(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 1, bias=False)
        self.conv2 = nn.Conv2d(c, c, 3, 1, 1, groups=c, bias=False)
        self.bn = nn.BatchNorm2d(c)

    def forward(self, x):
        return F.relu(self.bn(self.conv2(self.conv1(x))))


class ScaleBlock(nn.Module):
    """A block of OSNet: four chains of light filters behind one gate. Instance norm is `behind` the sum, or `inside` it."""

    def __init__(self, c, o, norm=None, listed=False):
        super().__init__()
        inner, self.norm, self.listed = o // 4, norm, listed
        self.conv1 = conv_bn(c, inner)
        chains = [[Light(inner) for _ in range(length)] for length in (1, 2, 3, 4)]
        if listed:
            self.conv2 = nn.ModuleList(nn.ModuleDict({"layers": nn.Sequential(*chain)}) for chain in chains)
        else:
            for letter, chain in zip("abcd", chains):
                setattr(self, f"conv2{letter}", chain[0] if letter == "a" else nn.Sequential(*chain))
        self.gate = nn.Module()
        self.gate.fc1 = nn.Conv2d(inner, 2, 1)
        self.gate.fc2 = nn.Conv2d(2, inner, 1)
        self.conv3 = conv_bn(inner, o, norm=None if norm == "inside" else nn.BatchNorm2d)
        if c != o:
            self.downsample = conv_bn(c, o)
        if norm:
            self.IN = InstanceNorm(o)

    def forward(self, x):
        across = self.downsample(x) if hasattr(self, "downsample") else x
        first = F.relu(self.conv1(x))
        chains = [chain["layers"] for chain in self.conv2] if self.listed else [self.conv2a, self.conv2b, self.conv2c, self.conv2d]
        total = 0
        for chain in chains:
            y = chain(first)
            total = total + y * torch.sigmoid(self.gate.fc2(F.relu(self.gate.fc1(y.mean((2, 3), keepdim=True)))))
        y = self.conv3(total)
        y = (self.IN(y) if self.norm == "inside" else y) + across
        return F.relu(self.IN(y) if self.norm == "behind" else y)


class Osnet(nn.Module):
    """OSNet, with batch norm alone, or as osnet_ibn or osnet_ain have instance norm."""

    def __init__(self, kind=""):
        super().__init__()
        widths = (8, 16, 24, 32)
        norms = {"": [None] * 6, "ibn": ["behind"] * 2 + [None] * 4,
                 "ain": ["inside", "inside", None, "inside", "inside", None]}[kind]
        self.listed = kind == "ain"
        self.conv1 = conv_bn(3, widths[0], 7, 2, norm=InstanceNorm if kind else nn.BatchNorm2d)
        for i in (2, 3, 4):
            c, o = widths[i - 2], widths[i - 1]
            blocks = [ScaleBlock(c if j == 0 else o, o, norms[2 * i - 4 + j], self.listed) for j in (0, 1)]
            between = nn.Sequential(conv_bn(o, o), nn.AvgPool2d(2, 2))
            setattr(self, f"conv{i}", nn.Sequential(*blocks, *([between] if i < 4 and not self.listed else [])))
            if i < 4 and self.listed:
                setattr(self, f"pool{i}", between)
        self.conv5 = conv_bn(widths[3], widths[3])
        self.fc = nn.Sequential(nn.Linear(widths[3], 12), nn.BatchNorm1d(12), nn.ReLU())
        self.classifier = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 3, 2, 1)
        for stage in (2, 3, 4):
            parts = list(getattr(self, f"conv{stage}")) + ([getattr(self, f"pool{stage}")] if self.listed and stage < 4 else [])
            for i, part in enumerate(parts):
                # Behind the blocks comes a filter with its ReLU, then means.
                x = part[1](F.relu(part[0](x))) if i == 2 else part(x)
        return self.classifier(self.fc(F.relu(self.conv5(x)).mean((2, 3))))


class FactorBlock(nn.Module):
    """A block of MLFN: grouped filters, each group times a gate that the block's input decides.

    The gate's layers are listed first, as they compute; in torchreid the filters are.
    """

    def __init__(self, c, o, stride, groups):
        super().__init__()
        inner = o // 2
        self.fsm = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, 6, 1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 1),
            nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, groups, 1), nn.BatchNorm2d(groups), nn.Sigmoid(),
        )
        for k, (c_in, c_out, size, step, parts) in enumerate(
            ((c, inner, 1, 1, 1), (inner, inner, 3, stride, groups), (inner, o, 1, 1, 1)), 1
        ):
            setattr(self, f"fm_conv{k}", nn.Conv2d(c_in, c_out, size, step, size // 2, groups=parts, bias=False))
            setattr(self, f"fm_bn{k}", nn.BatchNorm2d(c_out))
        self.downsample = None
        if c != o or stride > 1:
            self.downsample = nn.Sequential(nn.Conv2d(c, o, 1, stride, bias=False), nn.BatchNorm2d(o))

    def forward(self, x):
        gate = self.fsm(x)
        y = F.relu(self.fm_bn1(self.fm_conv1(x)))
        y = F.relu(self.fm_bn2(self.fm_conv2(y)))
        y = y * gate.repeat_interleave(y.shape[1] // gate.shape[1], 1)
        y = F.relu(self.fm_bn3(self.fm_conv3(y)))
        return F.relu(y + (x if self.downsample is None else self.downsample(x))), gate


class Mlfn(nn.Module):
    def __init__(self, widths=(6, 8, 12, 12, 16), groups=2):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, widths[0], 7, 2, 3), nn.BatchNorm2d(widths[0])
        blocks = []
        for stage, length in enumerate((3, 4, 6, 3)):
            for i in range(length):
                c = widths[stage + (i > 0)]
                blocks.append(FactorBlock(c, widths[stage + 1], 2 if stage > 0 and i == 0 else 1, groups))
        self.feature = nn.ModuleList(blocks)
        for name, c in (("fc_x", widths[4]), ("fc_s", 16 * groups)):
            setattr(self, name, nn.Sequential(nn.Conv2d(c, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU()))
        self.classifier = nn.Linear(10, 5)

    def forward(self, x):
        x, gates = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1), []
        for block in self.feature:
            x, gate = block(x)
            gates.append(gate)
        v = (self.fc_x(x.mean((2, 3), keepdim=True)) + self.fc_s(torch.cat(gates, 1))) * 0.5
        return self.classifier(v.flatten(1))


# --- networks of libraries


def densenet():
    from torchvision.models import DenseNet

    return DenseNet(growth_rate=4, block_config=(2, 2, 2, 2), num_init_features=8, bn_size=2, num_classes=5)


def mobilenet_v2():
    from torchvision.models import MobileNetV2
    from torchvision.ops import Conv2dNormActivation

    net = MobileNetV2(num_classes=5, width_mult=0.1)
    c = net.features[-1][0].in_channels
    net.features[-1] = Conv2dNormActivation(c, 24, kernel_size=1, activation_layer=nn.ReLU6)
    net.classifier[1] = nn.Linear(24, 5)
    return net


class HardSigmoid(nn.Module):
    """As nn.Hardsigmoid, of which PyTorch has no second derivative."""

    def forward(self, x):
        return F.relu6(x + 3) / 6


class HardSwish(nn.Module):
    def forward(self, x):
        return x * F.relu6(x + 3) / 6


def mobilenet_v3(kind, width):
    from torchvision.models.mobilenetv3 import MobileNetV3, _mobilenet_v3_conf

    settings, _ = _mobilenet_v3_conf(kind, width_mult=width)
    return smooth(MobileNetV3(settings, last_channel=16, num_classes=5))


def smooth(net):
    """The network with hard nonlinearities that have second derivatives."""
    for name, module in list(net.named_modules()):
        other = {nn.Hardsigmoid: HardSigmoid, nn.Hardswish: HardSwish}.get(type(module))
        if other:
            setattr(net.get_submodule(name.rpartition(".")[0]), name.rpartition(".")[2], other())
    return net


def timm_mobile(kind, width, **options):
    """A network of timm's own plan of blocks, with a narrow last filter."""
    from timm.models import efficientnet, mobilenetv3

    module, plan, name = {
        "v2": (efficientnet, efficientnet._gen_mobilenet_v2, "mobilenetv2_100"),
        "b0": (efficientnet, efficientnet._gen_efficientnet, "efficientnet_b0"),
        "tf_b0": (efficientnet, efficientnet._gen_efficientnet, "tf_efficientnet_b0"),
        "tf_v2_b0": (efficientnet, efficientnet._gen_efficientnetv2_base, "tf_efficientnetv2_b0"),
        "v3": (mobilenetv3, mobilenetv3._gen_mobilenet_v3, "mobilenetv3_small_100"),
        "v3_large": (mobilenetv3, mobilenetv3._gen_mobilenet_v3, "mobilenetv3_large_100"),
    }[kind]
    maker = "_create_mnv3" if module is mobilenetv3 else "_create_effnet"
    kept = getattr(module, maker)
    made = module.MobileNetV3 if module is mobilenetv3 else module.EfficientNet
    setattr(module, maker, lambda _variant, _pretrained, **kwargs: made(**kwargs | {"num_features": 24}, num_classes=5))
    try:
        return smooth(plan(name, width, **options))
    finally:
        setattr(module, maker, kept)


def efficientnet():
    from torchvision.models.efficientnet import EfficientNet, _efficientnet_conf

    settings, _ = _efficientnet_conf("efficientnet_b0", width_mult=0.1, depth_mult=1.0)
    return EfficientNet(settings, 0.2, last_channel=24, num_classes=5)


def efficientnet_v2():
    from torchvision.models.efficientnet import EfficientNet, FusedMBConvConfig, MBConvConfig

    plan = [
        FusedMBConvConfig(1, 3, 1, 8, 8, 2), FusedMBConvConfig(2, 3, 2, 8, 8, 4), FusedMBConvConfig(2, 3, 2, 8, 8, 4),
        MBConvConfig(2, 3, 2, 8, 8, 6), MBConvConfig(2, 3, 1, 8, 8, 9), MBConvConfig(2, 3, 2, 8, 8, 15),
    ]
    return EfficientNet(plan, 0.2, last_channel=24, num_classes=5, norm_layer=partial(nn.BatchNorm2d, eps=1e-3))


def convnext():
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    plan = [CNBlockConfig(8, 12, 1), CNBlockConfig(12, 16, 1), CNBlockConfig(16, 16, 2), CNBlockConfig(16, None, 1)]
    return ConvNeXt(plan, num_classes=5, layer_scale=0.5)


def regnet_timm():
    from timm.models.regnet import RegNet, RegNetCfg

    return RegNet(RegNetCfg(depth=6, w0=8, wa=6.0, wm=1.5, group_size=4, se_ratio=0.25, stem_width=6), num_classes=5)


def convnext_timm():
    import timm

    return timm.models.ConvNeXt(depths=(1, 1, 2, 1), dims=(8, 12, 16, 16), num_classes=5, ls_init_value=0.5)


def regnet(se):
    from torchvision.models.regnet import BlockParams, RegNet

    params = BlockParams([1, 1, 2, 1], [8, 12, 16, 16], [4, 4, 4, 4], [1.0] * 4, [2] * 4, 0.25 if se else None)
    return RegNet(params, num_classes=5, stem_width=6)


def resnext():
    from torchvision.models import ResNet
    from torchvision.models.resnet import Bottleneck

    net = ResNet(Bottleneck, [1, 1, 1, 1], num_classes=5, groups=4, width_per_group=8)
    return narrowed(net)


def narrowed(net):
    """Every width of a torchvision ResNet by sixteen; two groups."""
    for name, module in list(net.named_modules()):
        parent = net.get_submodule(name.rpartition(".")[0])
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Conv2d):
            c = 3 if module.in_channels == 3 else module.in_channels // 16
            made = nn.Conv2d(c, module.out_channels // 16, module.kernel_size, module.stride, module.padding,
                             groups=module.groups if module.groups == 1 else 2, bias=False)
            setattr(parent, last, made)
        elif isinstance(module, nn.BatchNorm2d):
            setattr(parent, last, nn.BatchNorm2d(module.num_features // 16))
        elif isinstance(module, nn.Linear):
            setattr(parent, last, nn.Linear(module.in_features // 16, 5))
    return net


def convnext_hugging_face():
    from transformers import ConvNextConfig, ConvNextForImageClassification

    config = ConvNextConfig(
        hidden_sizes=[8, 12, 16, 16], depths=[1, 1, 2, 1], num_labels=5, layer_scale_init_value=0.5, layer_norm_eps=1e-3
    )
    net = ConvNextForImageClassification(config)
    logits = net.forward
    net.forward = lambda x: logits(x).logits
    return net


def deit():
    import timm

    timm.layers.set_fused_attn(False)  # the fused one has no second derivative
    return timm.models.deit.VisionTransformerDistilled(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5
    )


def scaled_vit():
    import timm

    timm.layers.set_fused_attn(False)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, init_values=0.5
    )


def registered_vit():
    import timm

    timm.layers.set_fused_attn(False)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, init_values=0.5, reg_tokens=2,
        no_embed_class=True,
    )


def clip_hugging_face():
    from transformers import CLIPConfig, CLIPForImageClassification

    vision = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
    config = CLIPConfig(vision_config=vision | {"intermediate_size": 48}, attn_implementation="eager")
    config.num_labels = 5
    return in_precision(lambda: CLIPForImageClassification(config))


def clip_timm():
    import timm

    timm.layers.set_fused_attn(False)
    return timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=5, pre_norm=True, act_layer="quick_gelu",
        norm_layer=partial(nn.LayerNorm, eps=1e-5),
    )


def mixer():
    import timm

    return timm.models.MlpMixer(img_size=16, patch_size=4, embed_dim=12, num_blocks=2, num_classes=5)


def vit_hugging_face(kind):
    import transformers

    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 16, "patch_size": 8}
    sizes |= {"num_labels": 5, "attn_implementation": "eager"}
    if kind == "dinov2":
        net = transformers.Dinov2ForImageClassification(transformers.Dinov2Config(mlp_ratio=2, use_mask_token=False, **sizes))
    else:
        # Its eager attention rounds the weights to f32, in a network of doubles too.
        softmax = torch.nn.functional.softmax
        torch.nn.functional.softmax = lambda x, dim, dtype=None: softmax(x, dim=dim)
        config = transformers.DeiTConfig(intermediate_size=48, **sizes)
        net = transformers.DeiTForImageClassificationWithTeacher(config)
    outputs = net.forward
    net.forward = lambda x: outputs(x).logits
    return net


def swin_torchvision():
    from torchvision.models import SwinTransformer

    return SwinTransformer([2, 2], 8, [2, 2], [2, 4], [4, 4], mlp_ratio=2.0, num_classes=5)


def swin_timm():
    import timm

    timm.layers.set_fused_attn(False)
    return timm.models.SwinTransformer(
        img_size=16, patch_size=2, window_size=4, embed_dim=8, depths=(2, 2), num_heads=(2, 4), mlp_ratio=2.0, num_classes=5
    )


def in_precision(made):
    """A network of Hugging Face's whose eager attention does not round its weights to f32; of its outputs the logits."""
    softmax = torch.nn.functional.softmax
    torch.nn.functional.softmax = lambda x, dim, dtype=None: softmax(x, dim=dim)
    net = made()
    outputs = net.forward
    net.forward = lambda x: outputs(x).logits
    return net


def swin_hugging_face():
    from transformers import SwinConfig, SwinForImageClassification

    config = SwinConfig(
        image_size=16, patch_size=2, window_size=4, embed_dim=8, depths=[2, 2], num_heads=[2, 4], mlp_ratio=2.0,
        num_labels=5, layer_norm_eps=1e-3, attn_implementation="eager",
    )
    return in_precision(lambda: SwinForImageClassification(config))


NETWORKS = {
    "preact_cifar": (lambda: PreAct(PreActBlock, (6, 8, 12, 12), 2), 16),
    "preact_bottleneck_cifar": (lambda: PreAct(PreActBottleneck, (8, 12, 16, 16), 1), 16),
    "wrn_meliketoy": (lambda: PreAct(partial(PreActBlock, wide=True), (8, 12, 16), 1, wide=True), 16),
    "wrn_xternalz": (Wide, 16),
    "resnext_tiny": (resnext, 32),
    "densenet_tiny": (densenet, 32),
    "densenet_cifar": (CifarDense, 16),
    "alexnet_tiny": (alexnet, 64),
    "vgg_kuangliu": (vgg_kuangliu, 32),
    "vgg_dropout": (vgg_dropout, 32),
    "vgg_face": (VggFace, 64),
    "mobilenet_v2_tiny": (mobilenet_v2, 64),
    "mobilenet_v3_small_tiny": (lambda: mobilenet_v3("mobilenet_v3_small", 0.2), 32),
    "mobilenet_v3_large_tiny": (lambda: mobilenet_v3("mobilenet_v3_large", 0.1), 32),
    "efficientnet_tiny": (efficientnet, 32),
    "efficientnet_v2_tiny": (efficientnet_v2, 32),
    "regnet_y_tiny": (lambda: regnet(True), 32),
    "regnet_x_tiny": (lambda: regnet(False), 32),
    "mobilenet_v2_timm": (lambda: timm_mobile("v2", 0.1), 64),
    "mobilenet_v3_small_timm": (lambda: timm_mobile("v3", 0.2), 32),
    "mobilenet_v3_large_timm": (lambda: timm_mobile("v3_large", 0.1), 32),
    "efficientnet_timm": (lambda: timm_mobile("b0", 0.1), 32),
    "tf_efficientnet_timm": (lambda: timm_mobile("tf_b0", 0.1, bn_eps=1e-3, pad_type="same"), 32),
    "tf_efficientnet_v2_timm": (lambda: timm_mobile("tf_v2_b0", 0.1, bn_eps=1e-3, pad_type="same"), 32),
    "tf_mobilenet_v3_timm": (lambda: timm_mobile("v3", 0.2, bn_eps=1e-3, pad_type="same"), 32),
    "efficientnet_v2_timm": (lambda: timm_mobile("tf_v2_b0", 0.1), 32),
    "regnet_y_timm": (regnet_timm, 32),
    "convnext_tiny_torchvision": (convnext, 32),
    "convnext_tiny_timm": (convnext_timm, 32),
    "convnext_tiny_hugging_face": (convnext_hugging_face, 32),
    "osnet_tiny": (Osnet, 32),
    "osnet_ibn_tiny": (lambda: Osnet("ibn"), 32, True),
    "osnet_ain_tiny": (lambda: Osnet("ain"), 64, True),
    "mlfn_tiny": (Mlfn, 64, True),
    "deit_distilled_tiny": (deit, 16),
    "vit_layer_scale_tiny": (scaled_vit, 16),
    "vit_registers_tiny": (registered_vit, 16),
    "deit_distilled_hugging_face": (lambda: vit_hugging_face("deit"), 16),
    "clip_hugging_face": (clip_hugging_face, 16),
    "clip_timm": (clip_timm, 16),
    "mixer_timm": (mixer, 16),
    "swin_torchvision": (swin_torchvision, 16),
    "swin_timm": (swin_timm, 16),
    "swin_hugging_face": (swin_hugging_face, 16),
    "dinov2_hugging_face": (lambda: vit_hugging_face("dinov2"), 16),
}


# --- what is recorded


class Affine(nn.Module):
    """A batch norm as a factor and an offset, as the engine freezes it; timm's has a nonlinearity in it."""

    def __init__(self, norm):
        super().__init__()
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        self.scale, self.shift = (t.detach()[:, None, None] for t in (scale, norm.bias - norm.running_mean * scale))
        self.act = getattr(norm, "act", nn.Identity())

    def forward(self, x):
        return self.act(x * self.scale + self.shift)


def frozen(net):
    net = copy.deepcopy(net)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, Affine(child))
    return net


def noise(count, side, varied=False):
    """Images of noise; `varied` ones differ in brightness and in how coarse they are, so that means over positions differ."""
    if not varied:
        return torch.randn(count, 3, side, side)
    grains = [2 + int(i) for i in torch.randint(0, side - 1, (count,))]
    images = [F.interpolate(torch.randn(1, 3, grain, grain), side, mode="bilinear") for grain in grains]
    return torch.cat(images) * 2 + torch.randn(count, 3, 1, 1)


def randomise(net, side, varied=False):
    """Weights of a size that keeps values near 1, statistics of norms as after some training, all exact in f16."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, math.sqrt(1.6 / fan_in))
                if module.bias is not None:
                    module.bias.normal_(0, 0.1)
            elif hasattr(module, "weight") and module.weight is not None and module.weight.dim() == 1:
                module.weight.uniform_(0.7, 1.3)
                module.bias.normal_(0, 0.2)
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = None
            if hasattr(module, "eps"):
                module.eps = torch.tensor(module.eps).item()  # the f32 that the engine computes with, in f64 too
        for name, parameter in net.named_parameters():
            if name.endswith(("gamma", "layer_scale", "layer_scale_parameter", "lambda1")):
                parameter.uniform_(0.3, 0.7)
            elif name.endswith(("_token", "pos_embed", "position_embeddings", "bias_table", "class_embedding", "position_embedding.weight")):
                parameter.normal_(0, 0.5)
        net.train()
        for _ in range(2):
            net(noise(64, side, varied))
        net.eval()
        for tensor in list(net.parameters()) + list(net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(tensor.half().float())


def layers_of(net):
    return [(name, m) for name, m in net.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]


def run(net, x, y, selection, v):
    """What is recorded, in the precision of the network."""
    taps, order = [], []
    named = {id(layer.weight): name for name, layer in layers_of(net)}

    def keep(name, out, channels):
        if out.shape[0] != len(x):  # windows of an image, one after the other
            out = out.reshape(len(x), -1, out.shape[-1])
            channels = 2
        rest = [i for i in range(1, out.dim()) if i != channels]
        taps.append((out.mean(rest) if rest else out).detach())
        order.append({"layer": name, "channels": out.shape[channels]})

    def linear(x, weight, bias=None):  # not a hook: some modules call the function with another one's weight
        out = plain(x, weight, bias)
        if id(weight) in named:
            keep(named[id(weight)], out, out.dim() - 1)
        return out

    convs = [(n, layer) for n, layer in layers_of(net) if isinstance(layer, nn.Conv2d)]
    hooks = [c.register_forward_hook(lambda _module, _inputs, out, n=n: keep(n, out, 1)) for n, c in convs]
    plain, F.linear = F.linear, linear
    logits = net(x)
    F.linear = plain
    for h in hooks:
        h.remove()
    logits = (logits[0] + logits[1]) / 2 if isinstance(logits, tuple) else logits
    losses = F.cross_entropy(logits, y, reduction="none")
    names, params = zip(*net.named_parameters())
    grads = torch.autograd.grad(losses.mean(), params, create_graph=True, allow_unused=True)
    grads = {n: g for n, g in zip(names, grads) if g is not None}  # CLIP has a norm that its classifier does not read

    def of_block(values):
        parts = []
        for layer, row in selection:
            parts.append(values[layer + ".weight"][row].flatten())
            if layer + ".bias" in values:
                parts.append(values[layer + ".bias"][row].reshape(1))
        return torch.cat(parts)

    g = of_block(grads)
    hv = torch.autograd.grad((g * v).sum(), params, allow_unused=True)
    hv = {n: torch.zeros_like(p) if h is None else h for n, p, h in zip(names, params, hv)}
    return {
        "logits": logits.detach(), "loss": losses.detach(), "taps": torch.cat(taps, 1), "grad": g.detach(),
        "Hv_P": of_block(hv).detach(), "grads": {n: g.detach() for n, g in grads.items()}, "hv": hv, "order": order,
    }


def checks(values):
    def of(value):
        flat = value.flatten()
        return {"norm": flat.norm().item(), "dotcos": (flat * torch.arange(len(flat)).double().cos()).sum().item()}

    return {name: of(value.double()) for name, value in values.items()}


def record(name, make, side, varied=False):
    for seed in range(50):
        torch.manual_seed(seed)
        net = make()
        randomise(net, side, varied)
        x, y = noise(2, side, varied), torch.randint(0, 5, (2,))
        layers = [(n, layer) for n, layer in layers_of(net)]
        chosen = sorted({0, len(layers) // 3, len(layers) // 2, 2 * len(layers) // 3, len(layers) - 2, len(layers) - 1})
        selection = [[layers[i][0], (3 * i + 1) % layers[i][1].weight.shape[0]] for i in chosen]
        count = sum(l.weight[0].numel() + (l.bias is not None) for l in (net.get_submodule(n) for n, _ in selection))
        v = torch.randn(count)
        # The error of one f32 run is a matter of luck where few numbers are summed: the largest of a few ways to compute.
        plain = [run(net, x, y, selection, v)]
        plain.append(run(net, x.contiguous(memory_format=torch.channels_last), y, selection, v))
        with torch.backends.mkldnn.flags(enabled=False):
            plain.append(run(net, x, y, selection, v))
        if any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
            plain.append(run(frozen(net), x, y, selection, v))
        net.double()
        exact = run(net, x.double(), y, selection, v.double())
        error = {k: max(((p[k].double() - exact[k]).norm() / exact[k].norm()).item() for p in plain)
                 for k in ("logits", "loss", "taps", "grad", "Hv_P")}
        # A kink that lies between f32 and f64 would show as an error far above rounding; weak or saturated logits, no test.
        sizes = exact["logits"].norm().item(), exact["Hv_P"].norm().item()
        # Norms of single images, and of their means, leave small differences to tell images apart by: more rounding there.
        if max(error.values()) < (4e-5 if varied else 8e-6) and 0.3 < sizes[0] < 30 and sizes[1] > 1e-3:
            break
    else:
        raise SystemExit(f"{name}: no seed without a kink: {error} {sizes}")
    net.float()
    saved = {n: (t.half() if t.is_floating_point() else t).contiguous().clone() for n, t in net.state_dict().items()}
    saved |= {
        "golden.x": x, "golden.label": y, "golden.logits": exact["logits"], "golden.sample_losses": exact["loss"],
        "golden.taps_channel_mean_exec_per_sample": exact["taps"], "golden.v_P": v, "golden.g_P": exact["grad"],
        "golden.Hv_P": exact["Hv_P"],
    }
    save_file(saved, TARGET / f"{name}.safetensors")
    info = {
        "name": name, "seed": seed, "selection": selection, "grad_checks": checks(exact["grads"]),
        "Hv_full_checks": checks(exact["hv"]), "taps_exec": exact["order"],
        "layers_module_order": [{"layer": n, "out": l.weight.shape[0]} for n, l in layers], "f32_relerr": error,
    }
    (TARGET / f"{name}.json").write_text(json.dumps(info, separators=(",", ":")) + "\n")
    (TARGET / f"{name}.json").chmod(0o644)
    (TARGET / f"{name}.safetensors").chmod(0o644)
    size = sum((TARGET / f"{name}.{end}").stat().st_size for end in ("json", "safetensors"))
    print(f"{name}: seed {seed}, {size // 1024} KiB, f32 off by {max(error.values()):.1e}, logits {sizes[0]:.2f}, Hv {sizes[1]:.2g}")


torch.set_num_threads(1)
for name in sys.argv[1:] or NETWORKS:
    record(name, *NETWORKS[name])
