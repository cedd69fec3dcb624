"""Modules of any form, by their trace: against PyTorch, and what comes back into them."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

import scrubjay
from against_torch import agrees
from conftest import train
from torch import nn
from torch.nn import functional as F

QUICK = dict(method="lcodec", perturbations=30, products=4, stages=1, gate=1.0, progress=False, device="cpu", threads=2)


class Residual(nn.Module):
    """A residual network with group norm, a dilated and a grouped convolution, and a product with a number."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same", bias=False)
        self.norm = nn.GroupNorm(2, 8)
        self.one = nn.Conv2d(8, 12, 3, stride=2, padding=2, dilation=2, groups=2)
        self.side = nn.Conv2d(8, 12, 1, stride=2)
        self.batch = nn.BatchNorm2d(12)
        self.act = nn.SiLU(inplace=True)
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        x = self.act(self.norm(self.stem(x)))
        y = self.batch(self.one(x)) * 0.5
        y += self.side(x)
        return self.out(self.act(y).mean((2, 3)))


class Dense(nn.Module):
    """Layers that read all earlier ones, in place, with pools written as functions."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.layers = nn.ModuleList(nn.Conv2d(6 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.out = nn.Linear(18 * 4, 5)

    def forward(self, x):
        features = [F.max_pool2d(F.relu(self.stem(x), inplace=True), 3, 2, 1)]
        for layer in self.layers:
            features.append(torch.tanh(layer(torch.cat(features, 1))))
        x = F.avg_pool2d(torch.cat(features, dim=-3), 4)
        return self.out(x.view(x.shape[0], -1))


class Windows(nn.Module):
    """Pools of oblong windows, beyond the image, and with and without the padding in the mean."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix, self.out = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6 * 4 * 3, 5)
        self.means = nn.Sequential(
            nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False), nn.AvgPool2d(2, 3, ceil_mode=True)
        )

    def forward(self, x):
        x = F.max_pool2d(torch.tanh(self.stem(x)), (2, 3), 1, padding=(0, 1), ceil_mode=True)
        return self.out(F.avg_pool2d(torch.tanh(self.mix(self.means(x))), (2, 1), 1, padding=(1, 0)).flatten(1))


class Squeeze(nn.Module):
    """Gates for channels, a Swish of one's own, and a normalisation of the input."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.4, 0.5, 0.6]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.25]).view(1, 3, 1, 1))
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.down, self.up = nn.Linear(8, 3), nn.Linear(3, 8)
        self.mix = nn.Conv2d(8, 6, 1)
        self.pool = nn.AdaptiveAvgPool2d(2)
        self.out = nn.Linear(24, 5)

    def forward(self, x):
        x = self.conv((x - self.mean) / self.std)
        x = x * torch.sigmoid(x)
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean([-1, -2])))))
        return self.out(torch.flatten(self.pool(self.mix(x * gate[:, :, None, None])), 1))


class Tokens(nn.Module):
    """A transformer of patches, with learned tokens, positions, attention of two kinds, and a scale for each channel."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        self.positions = nn.Parameter(torch.randn(1, 17, 12) / 5)
        self.before, self.after = nn.LayerNorm(12), nn.LayerNorm(12)
        self.queries, self.keys, self.values = (nn.Linear(12, 12) for _ in range(3))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.scale = nn.Parameter(torch.rand(12))
        self.out = nn.Linear(12, 5)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(len(x), -1, -1), x), 1) + self.positions
        y = self.before(x)
        q, k, v = (f(y).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        x = x + self.scale * F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        y = self.after(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return self.out(F.gelu(x[:, 0]))


class Written(nn.Module):
    """Attention that is written out, over the positions of an image."""

    def __init__(self):
        super().__init__()
        self.patches, self.norm, self.drop = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12), nn.Dropout(0.2)
        self.one, self.two, self.out = nn.Linear(12, 36), nn.Linear(12, 36), nn.Linear(12, 5)

    def forward(self, x):
        x = self.patches(x).permute(0, 2, 3, 1)
        n, h, w, c = x.shape
        q, k, v = self.one(self.norm(x)).reshape(n, h * w, 3, 2, c // 2).permute(2, 0, 3, 1, 4)
        scores = self.drop(torch.softmax(q @ k.mT / (c // 2) ** 0.5, -1))
        y = (scores @ v).transpose(1, 2).reshape(n, h, w, c) + x
        q, k, v = (part.flatten(1, 2) for part in self.two(y).chunk(3, -1))
        y = torch.bmm(((c**-0.5) * q).bmm(k.transpose(1, 2)).softmax(dim=2), v)
        return self.out(F.silu(y).mean(1))


@pytest.mark.parametrize("make", [Residual, Dense, Windows, Squeeze, Tokens, Written])
def test_any_module_of_known_layers(make):
    torch.manual_seed(0)
    agrees(make(), (torch.randn(3, 3, 16, 16), torch.tensor([0, 3, 1])))


class Encoder(nn.Module):
    """A classifier of texts of PyTorch's own layers."""

    def __init__(self, **how):
        super().__init__()
        self.words, self.positions = nn.Embedding(40, 12, padding_idx=0), nn.Embedding(16, 12)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(12, 2, 24, **how), 2, enable_nested_tensor=False)
        self.out, self.batch_first = nn.Linear(12, 3), how.get("batch_first", False)

    def forward(self, ids, mask):
        x = self.words(ids) * 12**0.5 + self.positions(torch.arange(ids.shape[1]))
        if self.batch_first:
            return self.out(self.encoder(x, src_key_padding_mask=mask == 0)[:, 0])
        return self.out(self.encoder(x.transpose(0, 1), src_key_padding_mask=~mask.bool())[0])


class Texts(nn.Module):
    """A small BERT that is written by hand; its mask in three forms."""

    def __init__(self, form):
        super().__init__()
        self.words, self.types, self.form = nn.Embedding(40, 12), nn.Embedding(2, 12), form
        self.table = nn.Parameter(torch.randn(1, 16, 12) / 5)
        self.register_buffer("kinds", torch.zeros(1, 16, dtype=torch.long), persistent=False)
        self.norm, self.pool, self.out = nn.LayerNorm(12), nn.Linear(12, 12), nn.Linear(12, 3)
        self.queries, self.keys, self.values, self.mix = (nn.Linear(12, 12) for _ in range(4))

    def attend(self, x, mask):
        q, k, v = (f(x).unflatten(-1, (3, 4)).transpose(1, 2) for f in (self.queries, self.keys, self.values))
        mask = mask[:, None, None, :]
        if self.form == "kept":
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask.bool())
        scores = q @ k.mT / 4**0.5
        if self.form == "added":
            scores = scores + (1.0 - mask.to(scores.dtype)) * -1e9
        elif self.form == "filled":
            scores = scores.masked_fill(mask == 0, float("-inf"))
        else:
            scores = torch.where(mask > 0, scores, torch.finfo(torch.float32).min)
        return scores.softmax(-1) @ v

    def forward(self, input_ids, attention_mask):
        n, t = input_ids.shape
        x = self.norm(self.words(input_ids) + self.types(self.kinds[:, :t]) + self.table[:, :t])
        x = x + self.mix(self.attend(x, attention_mask).transpose(1, 2).flatten(2))
        return self.out(torch.tanh(self.pool(x[:, 0])))


def some_texts(count=3, tokens=7):
    ids = torch.randint(1, 40, (count, tokens), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    mask[2, 6:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Encoder(batch_first=True, activation="gelu"),
        lambda: Encoder(batch_first=True, norm_first=True).requires_grad_(True),
        lambda: Encoder(),
        *(lambda form=form: Texts(form) for form in ("kept", "added", "filled", "chosen")),
    ],
)
def test_modules_of_texts(make):
    torch.manual_seed(0)
    module, texts = make(), some_texts()
    agrees(module, (texts, torch.tensor([0, 2, 1])), least=1)
    for parameter in module.parameters():  # PyTorch then has a kernel of its own for whole layers
        parameter.requires_grad_(False)
    padded = {name: F.pad(values, (0, 3)) for name, values in texts.items()}
    here, there = (scrubjay.traces(module, (some, [0, 2, 1])).logits for some in (texts, padded))
    assert np.allclose(here, there, atol=1e-5)


def test_samples_are_removed_from_a_module_of_texts(tmp_path):
    torch.manual_seed(0)
    module = Texts("filled")
    texts = some_texts(60)
    labels = texts["input_ids"][:, 0] % 3
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(module(**texts), labels).backward()
        optimizer.step()
    outcome = scrubjay.unlearn(module.eval(), (texts, labels), range(12), val=(texts, labels), target_loss=1.0, **QUICK)
    assert outcome.removed == 12, outcome.notes
    outcome.apply(module)
    with torch.no_grad():
        loss = float(F.cross_entropy(module(**texts)[:12], labels[:12]))
    assert abs(loss - outcome.records[0]["account"]["after"]["forget"]["loss"]) < 1e-5
    outcome.save(tmp_path)
    assert scrubjay.traces(tmp_path, (texts, labels)).logits.tobytes() == scrubjay.traces(outcome, (texts, labels)).logits.tobytes()


class OfIds(nn.Module):
    """Embedded tokens, a function of these, ids and mask, and an output layer."""

    def __init__(self, function):
        super().__init__()
        self.words, self.out, self.function, self.conv = nn.Embedding(40, 4), nn.Linear(4, 3), function, nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, input_ids, attention_mask):
        return self.out(self.function(self, self.words(input_ids), input_ids, attention_mask))


def attended(x, mask):
    return F.scaled_dot_product_attention(x, x, x, attn_mask=mask)[:, 0]


@pytest.mark.parametrize(
    "function, words, path, kind",
    [
        (lambda of, x, ids, mask: of.conv(x.transpose(1, 2)).mean(-1), "is no layer", "conv", "Conv1d"),
        (lambda of, x, ids, mask: attended(x, torch.ones(7, 7).tril().bool()), "not that of the keys", "", "scaled_dot_product_attention"),
        (lambda of, x, ids, mask: attended(x, mask[:, None] == 0), "not that of the keys", "", "scaled_dot_product_attention"),
        (lambda of, x, ids, mask: attended(x, (mask - 1.0)[:, None]), "neither 0 nor below -10000", "", "scaled_dot_product_attention"),
        (lambda of, x, ids, mask: attended(x, (ids != 0)[:, None]), "computes with token ids", "", "ne"),
        (lambda of, x, ids, mask: (x * mask[..., None]).sum(1), "attention alone reads", "", "mul"),
        (lambda of, x, ids, mask: x[:, 2:5].mean(1), "a part of the tokens", "", "mean"),
        (lambda of, x, ids, mask: of.words(ids[:, :3]).mean(1), "not the token ids", "words", "Embedding"),
        (lambda of, x, ids, mask: (x * x).mean(1), "neither has one value for each channel", "", "mul"),
        (lambda of, x, ids, mask: x.max(1).values, "is no layer", "", "max"),
    ],
)
def test_what_has_no_layer_in_a_module_of_texts(function, words, path, kind):
    torch.manual_seed(0)
    with pytest.raises(scrubjay.UnsupportedModel) as caught:
        scrubjay.gradient(OfIds(function), (some_texts(), [0, 1, 2]))
    assert words in str(caught.value) and (caught.value.path, caught.value.kind) == (path, kind), caught.value


@pytest.mark.parametrize("name", ["squeezenet1_1", "mnasnet0_5", "googlenet"])
def test_networks_of_torchvision_without_a_family(name):
    models = pytest.importorskip("torchvision", reason="torchvision is not installed").models
    torch.manual_seed(0)
    words = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    agrees(getattr(models, name)(num_classes=5, **words), (torch.randn(3, 3, 48, 48), torch.tensor([0, 3, 1])))


def test_new_weights_have_the_module_s_own_names_and_types(digits):
    torch.manual_seed(0)
    (x, y), val, _ = digits
    images = [(np.repeat(x.reshape(-1, 1, 8, 8), 3, 1)[:200], y[:200] % 5) for x, y in ((x, y), val)]
    module = train(torch, Residual(), *images[0], epochs=60, rate=0.05).to(torch.float64)
    module.register_parameter("unread", nn.Parameter(torch.ones(2, 3)))
    outcome = scrubjay.unlearn(module, images[0], range(20), val=images[1], **QUICK)
    assert outcome.removed == 20, outcome.notes
    new, before = outcome.state_dict(), module.state_dict()
    assert set(new) == set(before) and all(new[name].dtype == before[name].dtype for name in new)
    changed = {name for name in new if not torch.equal(new[name], before[name])}
    assert changed and changed <= {f"{layer}.{part}" for layer in ("stem", "one", "side", "out") for part in ("weight", "bias")}
    outcome.apply(module)
    x, y = (torch.as_tensor(part[:20]) for part in images[0])
    with torch.no_grad():
        loss = F.cross_entropy(module.eval()(x.double()), y)
    assert abs(float(loss) - outcome.records[0]["account"]["after"]["forget"]["loss"]) < 1e-5


def test_a_graph_is_saved_with_its_config(digits, tmp_path):
    torch.manual_seed(0)
    x, y = np.repeat(digits[0][0].reshape(-1, 1, 8, 8), 3, 1)[:60], digits[0][1][:60] % 5
    outcome = scrubjay.unlearn(Squeeze(), (x, y), range(10), val=(x, y), despite=["near-chance"], **QUICK)
    outcome.save(tmp_path)
    from_files, mine = scrubjay.traces(tmp_path, (x, y)), scrubjay.traces(outcome, (x, y))
    assert from_files.logits.tobytes() == mine.logits.tobytes()


class Custom(nn.Module):
    """Two layers, and a function between them."""

    def __init__(self, function):
        super().__init__()
        self.one, self.two, self.function = nn.Conv2d(3, 4, 3), nn.Linear(4, 5), function

    def forward(self, x):
        return self.two(self.function(self.one(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "function, words, path, kind",
    [
        (torch.sin, "is no layer that is known here", "", "sin"),
        (lambda x: torch.cat((x[:, :2], x[:, :2]), 1), "reads a part of the values", "", "cat"),
        (lambda x: x[:, :2].repeat(1, 2, 1, 1), "which is not that of the channels", "two", "Linear"),
        (lambda x: x.flip(1), "works along the last side of a tensor, which is not that of the channels", "two", "Linear"),
        (lambda x: x * x, "neither has one value for each channel", "", "mul"),
        (lambda x: x + x.mean((2, 3), keepdim=True), "of different shapes", "", "add"),
        (lambda x: F.max_pool2d(x, 2, 2, dilation=2), "dilation", "", "max_pool2d"),
        (lambda x: F.avg_pool2d(x, 3, 2, divisor_override=5), "divisor_override", "", "avg_pool2d"),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2), stride=(1, 2)), "stride (1, 2)", "function", "Conv2d"),
        (nn.BatchNorm2d(4, affine=False), "without weight and bias", "function", "BatchNorm2d"),
        (nn.InstanceNorm2d(4), "is no layer", "function", "InstanceNorm2d"),
        (nn.Sequential(nn.ReLU(), nn.ELU()), "is no layer", "function.1", "ELU"),
        (lambda x: x if float(x.sum()) > 0 else -x, "cannot be traced", "", "Custom"),
    ],
)
def test_what_has_no_layer_is_named_with_its_place(function, words, path, kind):
    torch.manual_seed(0)
    with pytest.raises(scrubjay.UnsupportedModel) as caught:
        scrubjay.gradient(Custom(function), (torch.randn(3, 3, 8, 8), [0, 1, 2]))
    assert words in str(caught.value) and (caught.value.path, caught.value.kind) == (path, kind), caught.value
