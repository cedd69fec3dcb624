"""What scrubjay measures of a module, against PyTorch.

What is expected is computed in f64. What is found may differ from it by a few times as much as PyTorch's own f32 does.
"""

import copy

import numpy as np
import scrubjay
import torch
from torch.nn.functional import cross_entropy


def settled(module):
    """In eval mode, with running statistics and affine parameters that are not all 0 and 1."""
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.dim() == 1 and tensor.is_floating_point():
            with torch.no_grad():
                positive = tensor.min() >= 0 and "bias" not in name and "mean" not in name
                tensor.copy_(tensor + (0.2 * torch.rand_like(tensor) if positive else 0.05 * torch.randn_like(tensor)))
    return module.eval()


def logits_of(module, x, dtype=torch.float32):
    """A module's logits of images, or of texts: a mapping of ids and mask."""
    return module(*x.values()) if isinstance(x, dict) else module(x.to(dtype))


def gradient(module, data, v, dtype, along=0.0):
    """PyTorch's gradient of the mean loss over the parameters of v, in one row, at a point `along` v from the module's."""
    x, y = data
    module = copy.deepcopy(module).to(dtype)
    named = dict(module.named_parameters())
    with torch.no_grad():
        for name in v:
            named[name] += along * torch.as_tensor(v[name]).to(dtype)
    grads = torch.autograd.grad(cross_entropy(logits_of(module, x, dtype), y), [named[name] for name in v])
    return np.concatenate([grad.double().numpy().ravel() for grad in grads])


def distance(found, exact):
    """How far a vector lies from the exact one, as a share of that."""
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def agrees(module, data, least=3, **reading):
    """Compares logits, losses, activations of at least so many layers, gradient and a product with PyTorch's."""
    x, y = data
    module = settled(module)
    g = scrubjay.gradient(module, data, **reading)
    rng = np.random.default_rng(0)
    v = {name: rng.normal(size=values.shape).astype(np.float32) for name, values in g.items()}
    hv = scrubjay.hvp(module, data, v, **reading)
    trace = scrubjay.traces(module, data, **reading)
    seen = {}

    def keep(layer):
        return lambda part, given, out: seen.setdefault(layer, []).append(out.clone())  # what follows may work in place

    parts = dict(module.named_modules())
    layers = [layer for layer in dict.fromkeys(layer for layer, _ in trace.units) if layer in parts]
    hooks = [parts[layer].register_forward_hook(keep(layer)) for layer in layers]
    with torch.no_grad():
        logits = logits_of(module, x)
    [hook.remove() for hook in hooks]
    assert np.allclose(trace.logits, logits, atol=1e-5 * float(logits.abs().max()))
    assert np.allclose(trace.losses, cross_entropy(logits, y, reduction="none"), atol=1e-4)
    compared = 0
    for layer in layers:
        if layer not in seen:
            continue  # attention that PyTorch runs fused
        out = seen[layer][0].numpy()
        if out.ndim == 3 and out.shape[0] != len(y):
            out = out.swapaxes(0, 1)  # tokens first
        channels = sum(1 for other, _ in trace.units if other == layer)
        axis = next(i for i in (1, out.ndim - 1) if out.shape[i] == channels) if out.ndim > 2 else 1
        if out.ndim == 4 and out.shape[1] != channels:
            axis = 3
        mean = out.mean(tuple(i for i in range(1, out.ndim) if i != axis))
        mine = trace.activations[:, [i for i, (other, _) in enumerate(trace.units) if other == layer]]
        assert np.allclose(mine, mean, atol=2e-5 * np.abs(mean).max()), layer
        compared += 1
    assert compared >= least
    flat = [np.concatenate([vector[name].ravel() for name in v]) for vector in (g, hv)]
    exact, single = (gradient(module, data, v, dtype) for dtype in (torch.float64, torch.float32))
    error = distance(single, exact)
    assert distance(flat[0], exact) <= 4 * error + 2e-6, f"gradient {distance(flat[0], exact):.2g}, of PyTorch {error:.2g}"
    # PyTorch has no second derivative of some of these layers; differences in f64 over so short a step
    # cross no kink and are exact to about 1e-7.
    up, down = (gradient(module, data, v, torch.float64, along) for along in (1e-9, -1e-9))
    product = distance(flat[1], (up - down) / 2e-9)
    assert product <= 8 * error + 5e-6, f"product {product:.2g}, the gradient of PyTorch in f32 {error:.2g}"
