"""State dicts of PyTorch: imported networks give the logits of torch models with the usual names of layers."""

import jax
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mi_jax as mj
from mi_jax.errors import InputError

WIDTH = 0.125


def conv(c: int, o: int, size: int = 3, stride: int = 1, *, bias: bool = False) -> nn.Conv2d:
    return nn.Conv2d(c, o, size, stride, size // 2, bias=bias)


class BasicBlock(nn.Module):
    def __init__(self, c: int, o: int, stride: int):
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = (
            conv(c, o, stride=stride), nn.BatchNorm2d(o), conv(o, o), nn.BatchNorm2d(o),
        )  # fmt: skip
        self.downsample = nn.Sequential(conv(c, o, 1, stride), nn.BatchNorm2d(o)) if stride != 1 or c != o else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class PreActBlock(nn.Module):
    def __init__(self, c: int, o: int, stride: int):
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = (
            nn.BatchNorm2d(c), conv(c, o, stride=stride), nn.BatchNorm2d(o), conv(o, o),
        )  # fmt: skip
        if stride != 1 or c != o:
            self.shortcut = nn.Sequential(conv(c, o, 1, stride))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        return self.conv2(F.relu(self.bn2(self.conv1(out)))) + shortcut


class ResNet(nn.Module):
    """torchvision's names, with a 3 x 3 stem; with `PreActBlock` those of Rice et al. (2020)."""

    def __init__(self, block, classes: int):
        super().__init__()
        widths, self.preact = [int(w * WIDTH) for w in (64, 128, 256, 512)], block is PreActBlock
        self.conv1, c = conv(3, widths[0]), widths[0]
        if not self.preact:
            self.bn1 = nn.BatchNorm2d(c)
        for stage, o in enumerate(widths, start=1):
            layer = nn.Sequential(block(c, o, 1 if stage == 1 else 2), block(o, o, 1))
            setattr(self, f"layer{stage}", layer)
            c = o
        if self.preact:
            self.bn, self.linear = nn.BatchNorm2d(c), nn.Linear(c, classes)
        else:
            self.fc = nn.Linear(c, classes)

    def forward(self, x):
        x = self.conv1(x) if self.preact else F.relu(self.bn1(self.conv1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        if self.preact:
            return self.linear(F.relu(self.bn(x)).mean((2, 3)))
        return self.fc(x.mean((2, 3)))


class Torchvision(ResNet):
    """The stem of ImageNet."""

    def __init__(self, classes: int):
        super().__init__(BasicBlock, classes)
        self.conv1 = nn.Conv2d(3, self.conv1.out_channels, 7, 2, 3, bias=False)
        self.relu, self.maxpool = nn.ReLU(), nn.MaxPool2d(3, 2, 1)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class RobustBench(ResNet):
    """The names of RobustBench's ResNet-18: `shortcut` in place of `downsample`, `linear` in place of `fc`."""

    def __init__(self, classes: int):
        super().__init__(BasicBlock, classes)

    def state_dict(self, *args, **kwargs):
        names = super().state_dict(*args, **kwargs)
        renamed = {name.replace("downsample", "shortcut").replace("fc.", "linear."): t for name, t in names.items()}
        return {"mu": torch.zeros(1, 3, 1, 1), "sigma": torch.ones(1, 3, 1, 1), **renamed}


class WideBlock(nn.Module):
    """RobustBench's `BasicBlock` of `WideResNet`."""

    def __init__(self, c: int, o: int, stride: int):
        super().__init__()
        self.bn1, self.conv1, self.bn2, self.conv2 = (
            nn.BatchNorm2d(c), conv(c, o, stride=stride), nn.BatchNorm2d(o), conv(o, o),
        )  # fmt: skip
        self.convShortcut = None if c == o else nn.Conv2d(c, o, 1, stride, bias=False)

    def forward(self, x):
        out = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(out))))
        return y + (x if self.convShortcut is None else self.convShortcut(out))


class NetworkBlock(nn.Module):
    def __init__(self, c: int, o: int, stride: int):
        super().__init__()
        self.layer = nn.Sequential(*[WideBlock(c if i == 0 else o, o, stride if i == 0 else 1) for i in range(4)])

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        widths = [int(w * WIDTH) for w in (16, 160, 320, 640)]
        self.conv1 = conv(3, widths[0])
        for i in range(3):
            setattr(self, f"block{i + 1}", NetworkBlock(widths[i], widths[i + 1], 1 if i == 0 else 2))
        self.bn1, self.fc = nn.BatchNorm2d(widths[3]), nn.Linear(widths[3], classes)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(F.relu(self.bn1(x)).mean((2, 3)))


class VGG(nn.Module):
    """VGG-11 with batch normalisation as in common CIFAR code: biased convolutions, one linear layer."""

    def __init__(self, classes: int):
        super().__init__()
        layers, c = [], 3
        for base in (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"):
            if base == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                o = int(base * WIDTH)
                layers += [conv(c, o, bias=True), nn.BatchNorm2d(o), nn.ReLU()]
                c = o
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(c, classes)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))


class TorchvisionVGG(VGG):
    """Three dense layers on a map averaged to 7 x 7, as `vgg11_bn`."""

    def __init__(self, classes: int):
        super().__init__(classes)
        c, d = self.classifier.in_features * 49, int(4096 * WIDTH)
        self.classifier = nn.Sequential(
            nn.Linear(c, d), nn.ReLU(), nn.Dropout(), nn.Linear(d, d), nn.ReLU(), nn.Dropout(), nn.Linear(d, classes)
        )

    def forward(self, x):
        return self.classifier(F.adaptive_avg_pool2d(self.features(x), 7).flatten(1))


MODELS = {
    "resnet18": lambda: ResNet(BasicBlock, 7),
    "resnet18, torchvision": lambda: Torchvision(7),
    "resnet18, robustbench": lambda: RobustBench(7),
    "preact-resnet18": lambda: ResNet(PreActBlock, 7),
    "wrn-28-10": lambda: WideResNet(7),
    "vgg11": lambda: VGG(7),
    "vgg11, torchvision": lambda: TorchvisionVGG(7),
}


def randomised(arch: str) -> nn.Module:
    """A model in evaluation mode whose statistics, scales and biases are not at their defaults."""
    torch.manual_seed(0)
    model = MODELS[arch]().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.3, 0.3)
    return model


@pytest.mark.parametrize("model_name", MODELS)
def test_imported_networks_give_the_logits_of_the_torch_model(model_name):
    model, arch = randomised(model_name), model_name.split(",")[0]
    prefixed = {f"module.model.{name}": tensor for name, tensor in model.state_dict().items()}
    network, variables = mj.models.from_torch(prefixed, arch=arch, input_shape=(32, 32, 3), width=WIDTH, mean=0.5)
    assert network.num_classes == 7
    x = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(x.transpose(0, 3, 1, 2) - 0.5)).numpy()
    assert expected.std() > 1e-3
    np.testing.assert_allclose(network.logits(variables, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("centre", "scale"),
    [
        ("mean", "std"),
        ("mu", "sigma"),
        ("norm.mean", "norm.std"),
        ("module.preprocess.mean", "module.preprocess.std"),
        ("data_norm.mu", "data_norm.sigma"),
        ("0.mean", "0.std"),
    ],
)
def test_a_normalisation_of_images_is_imported_under_any_name_of_its_layer(centre, scale):
    model = randomised("resnet18")
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    state = {centre: mean.view(1, 3, 1, 1), scale: std, **model.state_dict()}
    network, variables = mj.models.from_torch(state, arch="resnet18", input_shape=(32, 32, 3), width=WIDTH)
    x = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(((torch.tensor(x) - mean) / std).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(network.logits(variables, x), expected, atol=1e-5, rtol=1e-5)


def test_a_tensor_that_may_change_the_function_and_is_not_imported_is_refused_by_its_name():
    state, three = randomised("resnet18").state_dict(), torch.full((3,), 0.5)
    options = {"arch": "resnet18", "input_shape": (32, 32, 3), "width": WIDTH}
    for key in ("normalizer.new_mean", "input_shift", "fc.weight_g"):
        with pytest.raises(InputError, match=rf"holds {key}, which no layer takes; .* pass mean= and std="):
            mj.models.from_torch({**state, key: three}, **options)
    doubtful = {**state, "norm.mean": three, "attacker.mu": three}
    with pytest.raises(InputError, match=r"both norm\.mean and attacker\.mu; pass the one .* as mean="):
        mj.models.from_torch(doubtful, **options)
    assert mj.models.from_torch(doubtful, mean=0.25, **options)[0].mean == (0.25,)


def test_counters_and_the_unused_block_of_trades_are_left_out():
    state = randomised("wrn-28-10").state_dict()
    copies = {f"sub_block1.{name}": tensor for name, tensor in state.items() if name.startswith("block1.")}
    options = {"arch": "wrn-28-10", "input_shape": (32, 32, 3), "width": WIDTH}
    assert copies
    _, variables = mj.models.from_torch({"n_averaged": torch.tensor(9), **state, **copies}, **options)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, mj.models.from_torch(state, **options)[1]))


def _with_biases(module: nn.Module, chosen) -> nn.Module:
    """Gives the convolutions whose name is chosen a bias."""
    for name, layer in module.named_modules():
        if isinstance(layer, nn.Conv2d) and chosen(name):
            layer.bias = nn.Parameter(torch.empty(layer.out_channels).uniform_(-0.5, 0.5))
    return module


@pytest.mark.parametrize(
    ("arch", "chosen"),
    [
        ("resnet18", lambda name: True),
        ("preact-resnet18", lambda name: name.startswith("layer") and name.endswith("conv1")),
        ("wrn-28-10", lambda name: name.endswith("layer.0.conv1")),
    ],
)
def test_biases_of_convolutions_go_into_the_normalisation_after_them(arch, chosen):
    model = _with_biases(randomised(arch), chosen)
    network, variables = mj.models.from_torch(model.state_dict(), arch=arch, input_shape=(32, 32, 3), width=WIDTH)
    x = np.random.default_rng(0).random((2, 32, 32, 3)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
    np.testing.assert_allclose(network.logits(variables, x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["layer1.0.conv2", "conv1"])
def test_a_bias_that_no_normalisation_follows_is_refused(name):
    state = _with_biases(randomised("preact-resnet18"), lambda found: found == name).state_dict()
    with pytest.raises(InputError, match=rf"does not fit preact-resnet18, which has no {name}\.bias"):
        mj.models.from_torch(state, arch="preact-resnet18", input_shape=(32, 32, 3), width=WIDTH)


def test_state_dicts_that_do_not_fit_are_refused_by_the_name_of_the_parameter():
    state = dict(randomised("resnet18").state_dict())

    def refused(changed, arch="resnet18", **options) -> str:
        with pytest.raises(InputError) as caught:
            mj.models.from_torch(changed, arch=arch, input_shape=(32, 32, 3), **({"width": WIDTH} | options))
        return str(caught.value)

    wide = state | {"conv1.weight": torch.zeros(8, 3, 5, 5)}
    assert "stem.kernel (conv1 of the state dict) must have shape [3, 3, 3, 8]; found shape [5, 5, 3, 8]" in refused(
        wide
    )
    assert "found nothing" in refused({k: v for k, v in state.items() if k != "layer2.0.conv1.weight"})
    assert "which has no extra" in refused(state | {"extra.weight": torch.zeros(3)})
    assert "must have shape [10]; found shape [7]" in refused(state, num_classes=10)
    assert "must have shape" in refused(state, width=1.0)
    assert "lenet cannot be imported from PyTorch; choose from resnet18" in refused(state, arch="lenet")
    assert "has no last linear layer of a vgg11" in refused(state, arch="vgg11")
    assert jax.tree.leaves(mj.models.from_torch(state, arch="resnet18", input_shape=(32, 32, 3), width=WIDTH)[1])


def test_a_whole_checkpoint_compiled_or_in_half_precision_is_read_and_what_holds_no_weights_is_refused():
    module = randomised("resnet18")
    state = {
        f"_orig_mod.{name}": t.bfloat16() if t.is_floating_point() else t for name, t in module.state_dict().items()
    }
    options = {"arch": "resnet18", "input_shape": (32, 32, 3), "width": WIDTH}
    _, variables = mj.models.from_torch({"net": state, "acc": torch.tensor(0.5), "epoch": 3}, **options)
    _, expected = mj.models.from_torch(
        {name.removeprefix("_orig_mod."): t.float() for name, t in state.items()}, **options
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))
    broken = state | {"_orig_mod.fc.bias": torch.full((7,), torch.nan)}
    with pytest.raises(InputError, match=r"has bias of features\.0 but no features\.0\.weight"):
        mj.models.from_torch(
            {"features.0.bias": torch.ones(8), "classifier.weight": torch.ones(7, 8)},
            arch="vgg11", input_shape=(32, 32, 3),
        )  # fmt: skip
    for sentence, given in {
        "NaN or infinite values in fc": broken,
        "got a ResNet. A torch module has it as": module,
        "got a dict": {"epoch": 3},
        "got a NoneType": None,
    }.items():
        with pytest.raises(InputError, match=sentence):
            mj.models.from_torch(given, **options)
