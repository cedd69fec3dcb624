"""Networks of torchvision, timm and Hugging Face: logits, traces, gradients and products against PyTorch.

What is expected is computed in f64. What is found may differ from it by a few times as much as PyTorch's own f32 does.
"""

import copy

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
models = pytest.importorskip("torchvision", reason="torchvision is not installed").models

import scrubjay
from torch.nn.functional import cross_entropy

from torchvision.models.convnext import CNBlockConfig, ConvNeXt
from torchvision.models.densenet import DenseNet
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers
from torchvision.models.vision_transformer import VisionTransformer

ONE = [1, 1, 1, 1]


def vgg():
    net = VGG(make_layers([8, "M", 12, "M"], batch_norm=True), num_classes=5)
    net.classifier = torch.nn.Sequential(torch.nn.Linear(12 * 49, 16), torch.nn.ReLU(), torch.nn.Linear(16, 5))
    return net


def regnet(squeeze):
    sizes = BlockParams.from_init_params(depth=5, w_0=8, w_a=8.0, w_m=2.0, group_width=8, se_ratio=squeeze)
    return RegNet(sizes, num_classes=5, stem_width=8)


TORCHVISION = {
    "resnet": (lambda: ResNet(BasicBlock, ONE, num_classes=5), 32),
    "resnet of bottlenecks": (lambda: ResNet(Bottleneck, [1, 2, 1, 1], num_classes=5, width_per_group=16), 32),
    "resnext": (lambda: ResNet(Bottleneck, ONE, num_classes=5, groups=4, width_per_group=8), 32),
    "wide resnet": (lambda: ResNet(Bottleneck, ONE, num_classes=5, width_per_group=32), 32),
    "vgg": (vgg, 32),
    "densenet": (lambda: DenseNet(4, (2, 2, 2, 2), 8, num_classes=5), 32),
    "mobilenet-v2": (lambda: models.mobilenet_v2(num_classes=5, width_mult=0.25), 32),
    "mobilenet-v3-small": (lambda: models.mobilenet_v3_small(num_classes=5, width_mult=0.5), 32),
    "mobilenet-v3-large": (lambda: models.mobilenet_v3_large(num_classes=5, width_mult=0.25), 32),
    "efficientnet": (lambda: models.efficientnet_b0(num_classes=5), 32),
    "regnet-x": (lambda: regnet(None), 32),
    "regnet-y": (lambda: regnet(0.25), 32),
    "convnext": (lambda: ConvNeXt([CNBlockConfig(12, 20, 1), CNBlockConfig(20, None, 1)], num_classes=5), 32),
    "vit": (lambda: VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5), 16),
}


def settled(module):
    """In eval mode, with running statistics and affine parameters that are not all 0 and 1."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.dim() == 1 and tensor.is_floating_point():
            with torch.no_grad():
                positive = tensor.min() >= 0 and "bias" not in name and "mean" not in name
                tensor.copy_(tensor + (0.2 * torch.rand_like(tensor) if positive else 0.05 * torch.randn_like(tensor)))
    return module.eval()


def gradient(module, data, v, dtype, along=0.0):
    """PyTorch's gradient of the mean loss over the parameters of v, in one row, at a point `along` v from the module's."""
    x, y = data
    module = copy.deepcopy(module).to(dtype)
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name in v:
            named[name] += along * torch.as_tensor(v[name]).to(dtype)
    grads = torch.autograd.grad(cross_entropy(module(x.to(dtype)), y), [named[name] for name in v])
    return np.concatenate([grad.double().numpy().ravel() for grad in grads])


def distance(found, exact):
    """How far a vector lies from the exact one, as a share of that."""
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    make, size = TORCHVISION[name]
    torch.manual_seed(0)
    module = settled(make())
    x, y = torch.randn(3, 3, size, size), torch.tensor([0, 3, 1])
    data = (x, y)
    heads = {"heads": 2} if name == "vit" else {}
    g = scrubjay.gradient(module, data, **heads)
    rng = np.random.default_rng(0)
    v = {name: rng.normal(size=values.shape).astype(np.float32) for name, values in g.items()}
    hv = scrubjay.hvp(module, data, v, **heads)
    trace = scrubjay.traces(module, data, **heads)
    seen = {}

    def keep(layer):
        return lambda part, given, out: seen.setdefault(layer, []).append(out.clone())  # what follows may work in place

    parts = dict(module.named_modules())
    layers = [layer for layer in dict.fromkeys(layer for layer, _ in trace.units) if layer in parts]
    hooks = [parts[layer].register_forward_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        logits = module(x)
    [hook.remove() for hook in hooks]
    assert np.allclose(trace.logits, logits, atol=1e-5 * float(logits.abs().max())), name
    assert np.allclose(trace.losses, cross_entropy(logits, y, reduction="none"), atol=1e-4)
    compared = 0
    for layer in layers:
        if layer not in seen:
            continue  # attention that PyTorch runs fused
        out = seen[layer][0].numpy()
        channels = sum(1 for other, _ in trace.units if other == layer)
        axis = next(i for i in (1, out.ndim - 1) if out.shape[i] == channels) if out.ndim > 2 else 1
        if out.ndim == 4 and out.shape[1] != channels:
            axis = 3
        mean = out.mean(tuple(i for i in range(1, out.ndim) if i != axis))
        mine = trace.activations[:, [i for i, (other, _) in enumerate(trace.units) if other == layer]]
        assert np.allclose(mine, mean, atol=2e-5 * np.abs(mean).max()), layer
        compared += 1
    assert compared >= 3
    flat = [np.concatenate([vector[name].ravel() for name in v]) for vector in (g, hv)]
    exact, single = (gradient(module, data, v, dtype) for dtype in (torch.float64, torch.float32))
    error = distance(single, exact)
    assert distance(flat[0], exact) <= 4 * error + 2e-6, f"gradient {distance(flat[0], exact):.2g}, of PyTorch {error:.2g}"
    # PyTorch has no second derivative of some of these layers; differences in f64 over so short a step
    # cross no kink and are exact to about 1e-7.
    up, down = (gradient(module, data, v, torch.float64, along) for along in (1e-9, -1e-9))
    product = distance(flat[1], (up - down) / 2e-9)
    assert product <= 8 * error + 5e-6, f"product {product:.2g}, the gradient of PyTorch in f32 {error:.2g}"


def test_what_no_family_has_is_refused():
    torch.manual_seed(0)
    data = (torch.randn(2, 3, 32, 32), [0, 1])
    with pytest.raises(scrubjay.UnsupportedModel):
        scrubjay.gradient(models.shufflenet_v2_x0_5(num_classes=5), data)
    odd = ResNet(BasicBlock, ONE, num_classes=5)
    odd.relu = torch.nn.Tanh()  # the names of a ResNet
    with pytest.raises(scrubjay.UnsupportedModel, match="computes something else"):
        scrubjay.gradient(odd, data)


def test_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    module = settled(timm.create_model("resnet18", num_classes=4))
    data = (torch.randn(2, 3, 32, 32), [0, 1])
    with torch.no_grad():
        assert np.allclose(scrubjay.traces(module, data).logits, module(data[0]), atol=1e-4)
    odd = timm.create_model("resnet18", num_classes=4, act_layer=torch.nn.SiLU)
    with pytest.raises(scrubjay.UnsupportedModel):
        scrubjay.traces(odd, data)


def test_hugging_face():
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=12, num_labels=3,
    )
    module = transformers.BertForSequenceClassification(config).eval()
    ids = torch.randint(5, 40, (6, 10))
    mask = torch.ones_like(ids)
    mask[2, 7:] = 0
    data = {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}
    with torch.no_grad():
        logits = module(input_ids=ids, attention_mask=mask).logits
    assert np.allclose(scrubjay.traces(module, data).logits, logits, atol=1e-5)
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4, num_labels=3
    )
    module = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert np.allclose(scrubjay.traces(module, (x, [0, 1, 2])).logits, module(x).logits, atol=1e-5)
