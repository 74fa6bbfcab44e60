"""Every architecture against a PyTorch model with the same weights: parameters, logits, input gradients, statistics."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch import nn

import mi_jax as mj


def _named(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))


def _conv(
    c: int, o: int, size: int = 3, *, stride: int = 1, padding: int | None = None, bias: bool = False
) -> nn.Conv2d:
    return nn.Conv2d(c, o, size, stride=stride, padding=size // 2 if padding is None else padding, bias=bias)


def _vgg(depths: tuple[int, ...], width: float, colours: int, classes: int) -> nn.Module:
    layers: dict[str, nn.Module] = {}
    features, block = colours, 0
    for stage, (base, depth) in enumerate(zip((64, 128, 256, 512, 512), depths, strict=True)):
        for _ in range(depth):
            block += 1
            widened = int(base * width)
            layers[f"conv{block}"] = _named(conv=_conv(features, widened), norm=nn.BatchNorm2d(widened), relu=nn.ReLU())
            features = widened
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return _named(**layers, mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, classes))


def _mlp(pixels: int, classes: int) -> nn.Module:
    widths = (pixels, 1024, 20, 20, 20)
    layers: dict[str, nn.Module] = {"flat": nn.Flatten()}
    for number in range(1, 5):
        layers[f"dense{number}"] = nn.Linear(widths[number - 1], widths[number])
        layers[f"relu{number}"] = nn.ReLU()
    return _named(**layers, head=nn.Linear(20, classes))


def _lenet(classes: int) -> nn.Module:
    """For 28 x 28 x 1."""
    return _named(
        **{"conv1": _conv(1, 6, 5, bias=True), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2)},
        **{"conv2": _conv(6, 16, 5, padding=0, bias=True), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2)},
        **{"flat": nn.Flatten(), "dense1": nn.Linear(400, 120), "relu3": nn.ReLU()},
        **{"dense2": nn.Linear(120, 84), "relu4": nn.ReLU(), "head": nn.Linear(84, classes)},
    )


def _cnn(side: int, colours: int, classes: int) -> nn.Module:
    return _named(
        **{"conv1": _conv(colours, 16, bias=True), "relu1": nn.ReLU(), "pool1": nn.MaxPool2d(2)},
        **{"conv2": _conv(16, 32, bias=True), "relu2": nn.ReLU(), "pool2": nn.MaxPool2d(2)},
        **{"conv3": _conv(32, 64, bias=True), "relu3": nn.ReLU(), "pool3": nn.MaxPool2d(2)},
        **{"flat": nn.Flatten(), "dense1": nn.Linear(64 * (side // 8) ** 2, 64), "relu4": nn.ReLU()},
        head=nn.Linear(64, classes),
    )


class BasicBlock(nn.Module):
    def __init__(self, c: int, o: int, stride: int):
        super().__init__()
        self.conv1, self.norm1 = _conv(c, o, stride=stride), nn.BatchNorm2d(o)
        self.conv2, self.norm2 = _conv(o, o), nn.BatchNorm2d(o)
        self.projected = stride != 1 or c != o
        if self.projected:
            self.shortcut, self.shortcut_norm = _conv(c, o, 1, stride=stride), nn.BatchNorm2d(o)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + (self.shortcut_norm(self.shortcut(x)) if self.projected else x))


def _resnet(depths: tuple[int, ...], width: float, colours: int, classes: int) -> nn.Module:
    features = int(64 * width)
    layers: dict[str, nn.Module] = {"stem": _conv(colours, features), "stem_norm": nn.BatchNorm2d(features)}
    layers["relu"] = nn.ReLU()
    for stage, (base, depth) in enumerate(zip((64, 128, 256, 512), depths, strict=True), start=1):
        for block in range(1, depth + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = BasicBlock(features, int(base * width), stride)
            features = int(base * width)
    return _named(**layers, mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, classes))


class PreactivationBlock(nn.Module):
    def __init__(self, c: int, o: int, stride: int, slope: float):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), _conv(c, o, stride=stride)
        self.norm2, self.conv2 = nn.BatchNorm2d(o), _conv(o, o)
        self.activate = nn.LeakyReLU(slope)
        self.shortcut = _conv(c, o, 1, stride=stride) if stride != 1 or c != o else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.activate(self.norm1(x))
        y = self.conv2(self.activate(self.norm2(self.conv1(activated))))
        return y + (x if self.shortcut is None else self.shortcut(activated))


def _wide_resnet(depth: int, widening: float, slope: float, colours: int, classes: int) -> nn.Module:
    """The stem is not widened, as in the paper of Zagoruyko and Komodakis."""
    features = 16
    layers: dict[str, nn.Module] = {"stem": _conv(colours, features)}
    for stage, base in enumerate((16, 32, 64), start=1):
        for block in range(1, (depth - 4) // 6 + 1):
            widened, stride = int(base * widening), 2 if stage > 1 and block == 1 else 1
            layers[f"stage{stage}_block{block}"] = PreactivationBlock(features, widened, stride, slope)
            features = widened
    layers |= {"norm": nn.BatchNorm2d(features), "activate": nn.LeakyReLU(slope)}
    return _named(**layers, mean=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(features, classes))


def _copy_weights(variables: dict[str, Any], peer: nn.Module, *, flattened: tuple[int, int, int] | None = None) -> None:
    """Copies a network's variables into the PyTorch model of the same layers.

    `flattened` is the shape `(h, w, c)` of the map that `dense1` flattens; PyTorch flattens it as `(c, h, w)`.
    """
    for path, layer in peer.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm2d):
            params = _at(variables["params"], path)
            if isinstance(layer, nn.BatchNorm2d):
                statistics = _at(variables["batch_stats"], path)
                _fill(layer.weight, params["scale"])
                _fill(layer.running_mean, statistics["mean"])
                _fill(layer.running_var, statistics["var"])
            elif isinstance(layer, nn.Conv2d):
                _fill(layer.weight, np.transpose(params["kernel"], (3, 2, 0, 1)))
            else:
                kernel = np.asarray(params["kernel"])
                if path == "dense1" and flattened is not None:
                    kernel = kernel.reshape(*flattened, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
                _fill(layer.weight, kernel.T)
            if layer.bias is not None:
                _fill(layer.bias, params["bias"])


def _to_torch(images: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy())


def _to_numpy(images: torch.Tensor) -> np.ndarray:
    return images.detach().numpy().transpose(0, 2, 3, 1)


def _at(tree: dict[str, Any], path: str) -> dict[str, Any]:
    for name in path.split("."):
        tree = tree[name]
    return tree


def _fill(tensor: torch.Tensor | None, values: Any) -> None:
    assert tensor is not None
    array = np.asarray(values)
    assert tuple(tensor.shape) == array.shape
    with torch.no_grad():
        tensor.copy_(torch.tensor(array))


class Case(NamedTuple):
    network: mj.models.Network
    peer: Callable[[], nn.Module]
    flattened: tuple[int, int, int] | None = None


def _create(
    arch: str, side: int = 32, colours: int = 3, width: float = 1.0, convolution: Any = "lax"
) -> mj.models.Network:
    """XLA's convolution compiles soonest; `auto` where the parity of the backend's own choice is meant."""
    shape = (side, side, colours)
    return mj.models.create(arch, num_classes=10, input_shape=shape, width=width, convolution=convolution)


CASES = {
    "mlp": Case(_create("mlp", 28, 1), lambda: _mlp(784, 10)),
    "lenet": Case(_create("lenet", 28, 1), lambda: _lenet(10), (5, 5, 16)),
    "cnn": Case(_create("cnn"), lambda: _cnn(32, 3, 10), (4, 4, 64)),
    "vgg11": Case(_create("vgg11", width=0.25, convolution="auto"), lambda: _vgg((1, 1, 2, 2, 2), 0.25, 3, 10)),
    "vgg11-96": Case(_create("vgg11", 96, 1, 0.125), lambda: _vgg((1, 1, 2, 2, 2), 0.125, 1, 10)),
    "vgg19": Case(_create("vgg19", width=0.25), lambda: _vgg((2, 2, 4, 4, 4), 0.25, 3, 10)),
    "resnet18": Case(_create("resnet18", width=0.25), lambda: _resnet((2, 2, 2, 2), 0.25, 3, 10)),
    "resnet18-odd": Case(_create("resnet18", 19, 3, 0.125), lambda: _resnet((2, 2, 2, 2), 0.125, 3, 10)),
    "resnet34": Case(_create("resnet34", 16, 3, 0.125), lambda: _resnet((3, 4, 6, 3), 0.125, 3, 10)),
    "wrn-10-1": Case(_create("wrn-10-1", convolution="auto"), lambda: _wide_resnet(10, 1, 0.1, 3, 10)),
}

DEEP = ("vgg19", "resnet18", "resnet34")
"""Left to the slow tests: minutes of compilation for layers that the shallow ones have too."""


def _randomised(network: mj.models.Network, key: jax.Array) -> dict[str, Any]:
    """Initial variables with biases, scales and running statistics that are not at their defaults."""
    leaves, tree = jax.tree.flatten(network.init(key))
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        tree,
        [
            leaf + 0.1 * jax.random.uniform(k, leaf.shape) if leaf.ndim == 1 else leaf
            for leaf, k in zip(leaves, keys, strict=True)
        ],
    )


def _images(network: mj.models.Network, count: int, key: jax.Array) -> jax.Array:
    return jax.random.uniform(key, (count, *network.input_shape))


def _pair(name: str, key: jax.Array) -> tuple[mj.models.Network, dict[str, Any], nn.Module]:
    network, peer, flattened = CASES[name]
    variables = _randomised(network, key)
    module = peer().eval()
    _copy_weights(variables, module, flattened=flattened)
    return network, variables, module


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in DEEP else n for n in CASES])
def test_logits_and_input_gradients_equal_those_of_pytorch(name, key):
    network, variables, peer = _pair(name, key)
    x = _images(network, 4, jax.random.fold_in(key, 1))
    weights = jax.random.normal(jax.random.fold_in(key, 2), (4, 10))

    def score(x: jax.Array, variables: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        logits = network.logits(variables, x)
        return (logits * weights).sum(), logits

    gradient, logits = jax.jit(jax.grad(score, has_aux=True))(x, variables)
    x_torch = _to_torch(x).requires_grad_()
    logits_torch = peer(x_torch)
    (logits_torch * torch.tensor(np.asarray(weights))).sum().backward()

    assert network.parameter_count == sum(p.numel() for p in peer.parameters())
    assert float(jnp.std(logits)) > 1e-3
    np.testing.assert_allclose(logits, logits_torch.detach().numpy(), atol=1e-5, rtol=1e-5)
    assert x_torch.grad is not None
    np.testing.assert_allclose(gradient, _to_numpy(x_torch.grad), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vgg11-96", "resnet18-odd"])
def test_running_statistics_after_a_training_step_equal_those_of_pytorch(name, key):
    network, variables, peer = _pair(name, key)
    x = _images(network, 4, jax.random.fold_in(key, 1))
    logits, _, statistics = jax.jit(network.apply_train)(variables, x, key)
    logits_torch = peer.train()(_to_torch(x))

    np.testing.assert_allclose(logits, logits_torch.detach().numpy(), atol=1e-4, rtol=1e-4)
    compared = 0
    for path, layer in peer.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            ours = statistics
            for part in path.split("."):
                ours = ours[part]
            np.testing.assert_allclose(ours["mean"], layer.running_mean, atol=1e-5, rtol=1e-5)
            np.testing.assert_allclose(ours["var"], layer.running_var, atol=1e-5, rtol=1e-5)
            compared += 1
    assert compared == len(jax.tree.leaves(statistics)) // 2


@pytest.mark.parametrize(
    ("arch", "count"),
    [
        *(("vgg11", 9_228_362), ("vgg13", 9_413_066), ("vgg16", 14_724_042), ("vgg19", 20_035_018)),
        *(("resnet18", 11_173_962), ("resnet34", 21_282_122), ("wrn-10-1", 77_850), ("wrn-28-10", 36_479_194)),
    ],
)
def test_parameter_count_for_cifar10_is_the_published_one(arch, count):
    assert _create(arch).parameter_count == count


def test_wide_resnet_28_10_has_the_layers_of_the_torch_model():
    peer = _wide_resnet(28, 10, 0.0, 3, 10)
    assert _create("wrn-28-10").parameter_count == sum(p.numel() for p in peer.parameters())
