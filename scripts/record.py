"""Records a tiny BERT with random weights for tests/data/nets: scripts/record.py (PyTorch, transformers, safetensors)

Writes the weights (f32, every tensor of the state, of larger deviation than at the start of a training, so that no
part of the function is near linear) and what PyTorch computes with them in f64, in the form of scripts/golden.py.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

TARGET = Path(__file__).parent.parent / "tests/data/nets/bert_tiny"
SELECTION = [
    ["bert.encoder.layer.0.attention.self.query", 3],
    ["bert.encoder.layer.0.attention.output.dense", 5],
    ["bert.encoder.layer.1.attention.self.value", 14],
    ["bert.encoder.layer.1.intermediate.dense", 7],
    ["bert.pooler.dense", 2],
    ["classifier", 1],
]

torch.manual_seed(3)
torch.set_num_threads(1)
config = BertConfig(
    vocab_size=48, hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
    max_position_embeddings=12, type_vocab_size=2, num_labels=3, hidden_act="gelu_new", attn_implementation="eager",
)  # fmt: skip
model = BertForSequenceClassification(config).eval()
with torch.no_grad():
    for name, parameter in model.named_parameters():
        base = 1.0 if name.endswith("LayerNorm.weight") else 0.0
        parameter.copy_(base + 0.3 * torch.randn_like(parameter))
ids = torch.randint(3, 48, (3, 9))
mask = torch.ones(3, 9, dtype=torch.long)
for row, end in ((1, 6), (2, 3)):
    mask[row, end:] = 0
    ids[row, end:] = 0
label = torch.tensor([2, 0, 1])
layers = [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]


def passes(dtype, v):
    """Logits, losses, taps, gradient and Hv of every parameter; v is on the block."""
    model.to(dtype)
    taps = {}
    hooks = [
        m.register_forward_hook(lambda m, x, y, n=n: taps.__setitem__(n, y.reshape(y.shape[0], -1, y.shape[-1]).mean(1)))
        for n, m in layers
    ]
    logits = model(input_ids=ids, attention_mask=mask).logits
    for hook in hooks:
        hook.remove()
    losses = torch.nn.functional.cross_entropy(logits, label, reduction="none")
    parameters = dict(model.named_parameters())
    names = list(parameters)
    gradients = torch.autograd.grad(losses.mean(), list(parameters.values()), create_graph=True, allow_unused=True)
    gradient = {n: torch.zeros_like(parameters[n]) if g is None else g for n, g in zip(names, gradients)}
    product, at = 0, 0
    for layer, row in SELECTION:
        weight = gradient[f"{layer}.weight"][row]
        product = product + (weight * v[at : at + len(weight)].to(dtype)).sum()
        product = product + gradient[f"{layer}.bias"][row] * v[at + len(weight)].to(dtype)
        at += len(weight) + 1
    products = torch.autograd.grad(product, list(parameters.values()), allow_unused=True)
    hv = {n: torch.zeros_like(parameters[n]) if g is None else g for n, g in zip(names, products)}
    return logits.detach(), losses.detach(), torch.cat([taps[n] for n, _ in layers], 1).detach(), gradient, hv


def block(values):
    """The selected units of every parameter's values."""
    parts = []
    for layer, row in SELECTION:
        parts += [values[f"{layer}.weight"][row].detach().reshape(-1), values[f"{layer}.bias"][row].detach().reshape(1)]
    return torch.cat(parts)


def checks(values):
    """Norm and Σ v_i cos(i) of each parameter's values."""
    flat = {n: v.detach().double().reshape(-1) for n, v in values.items()}
    return {
        n: {"norm": v.norm().item(), "dotcos": sum(x * math.cos(i) for i, x in enumerate(v.tolist()))}
        for n, v in flat.items()
    }


def off(a, b):
    return ((a.double() - b).norm() / b.norm()).item()


state = {n: p.detach().clone().float() for n, p in model.named_parameters()}
v = torch.randn(len(block(state)))
narrow, wide = passes(torch.float32, v), passes(torch.float64, v)
logits, losses, taps, gradient, hv = wide
tensors = {**state, "golden.input_ids": ids, "golden.attention_mask": mask, "golden.label": label, "golden.v_P": v}
tensors |= {
    "golden.logits": logits,
    "golden.loss": losses.mean().reshape(1),
    "golden.sample_losses": losses,
    "golden.taps_channel_mean_exec_per_sample": taps,
    "golden.g_P": block(gradient),
    "golden.Hv_P": block(hv),
}
save_file({n: t.contiguous() for n, t in tensors.items()}, f"{TARGET}.safetensors")
info = {
    "name": "bert_tiny",
    "arch": "BertForSequenceClassification(vocab 48, dim 16, layers 2, heads 4, hidden 24, max_pos 12, labels 3), "
    "eager attention, eps 1e-12, gelu_new",
    "selection": SELECTION,
    "grad_checks": checks(gradient),
    "Hv_full_checks": checks(hv),
    "taps_exec": [{"layer": n, "channels": m.out_features} for n, m in layers],
    "layers_module_order": [{"layer": n, "out": m.out_features} for n, m in layers],
    "f32_relerr": {
        "logits": off(narrow[0], logits),
        "loss": off(narrow[1], losses),
        "taps": off(narrow[2], taps),
        "grad": off(block(narrow[3]), block(gradient)),
        "Hv_P": off(block(narrow[4]), block(hv)),
    },
}
Path(f"{TARGET}.json").write_text(json.dumps(info, separators=(",", ":")) + "\n")
