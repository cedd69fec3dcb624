"""Networks of torchvision, timm and Hugging Face: logits, traces, gradients and products against PyTorch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
models = pytest.importorskip("torchvision", reason="torchvision is not installed").models

import scrubjay
from against_torch import agrees, settled

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


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name):
    make, size = TORCHVISION[name]
    torch.manual_seed(0)
    agrees(make(), (torch.randn(3, 3, size, size), torch.tensor([0, 3, 1])), **({"heads": 2} if name == "vit" else {}))


def test_what_is_of_no_family_is_read_by_its_trace_or_refused():
    torch.manual_seed(0)
    with pytest.raises(scrubjay.UnsupportedModel, match=r"`stage2\.1\.branch2\.0` \(Conv2d\) reads a part of the values"):
        scrubjay.gradient(models.shufflenet_v2_x0_5(num_classes=5), (torch.randn(2, 3, 32, 32), [0, 1]))
    odd = ResNet(BasicBlock, ONE, num_classes=5)
    odd.relu = torch.nn.Tanh()  # the names of a ResNet
    agrees(odd, (torch.randn(2, 3, 32, 32), torch.tensor([0, 1])))
    with pytest.raises(scrubjay.UnsupportedModel, match="computes something else"):
        scrubjay.gradient(odd, (torch.randn(2, 3, 32, 32), [0, 1]), arch="resnet")


def test_timm():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    torch.manual_seed(0)
    module = settled(timm.create_model("resnet18", num_classes=4))
    data = (torch.randn(2, 3, 32, 32), [0, 1])
    with torch.no_grad():
        assert np.allclose(scrubjay.traces(module, data).logits, module(data[0]), atol=1e-4)
    odd = timm.create_model("resnet18", num_classes=4, act_layer=torch.nn.SiLU)
    with torch.no_grad():
        assert np.allclose(scrubjay.traces(odd, data).logits, odd.eval()(data[0]), atol=1e-4)


def test_hugging_face(tmp_path):
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
    # Texts, by the tokenizer of transformers and by its files.
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(35))]
    (tmp_path / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = transformers.BertTokenizerFast(str(tmp_path / "vocab.txt"))
    texts = ["word1 word7", "word3", "word9 word2 word4 nothing", "word5 " * 30]
    read = tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        logits = module(**read).logits
    for given in (tokenizer, tmp_path / "vocab.txt"):
        found = scrubjay.traces(module, (texts, [0, 1, 2, 0]), tokenizer=given)
        assert np.allclose(found.logits, logits, atol=1e-5)
    with pytest.raises(scrubjay.DataError, match="data: the inputs are texts, .*tokenizer is the path"):
        scrubjay.traces(module, (texts, [0, 1, 2, 0]))
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=16, patch_size=4, num_labels=3
    )
    module = transformers.ViTForImageClassification(config).eval()
    x = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        assert np.allclose(scrubjay.traces(module, (x, [0, 1, 2])).logits, module(x).logits, atol=1e-5)
