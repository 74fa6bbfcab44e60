"""VGG-11 with batch normalisation in torch, channels last, with weights copied from mi_jax."""

from collections import OrderedDict
from typing import Any

import numpy as np
import torch
from torch import nn

DEPTHS, FEATURES = (1, 1, 2, 2, 2), (64, 128, 256, 512, 512)


def vgg11(variables: dict[str, Any], *, width: float, classes: int = 10) -> nn.Module:
    """The network in evaluation mode with copied weights: kernels (h w i o) -> (o i h w)."""
    params, statistics = variables["params"], variables["batch_stats"]
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels, number = 3, 0
    for stage, (depth, base) in enumerate(zip(DEPTHS, FEATURES, strict=True)):
        for _ in range(depth):
            number += 1
            conv = nn.Conv2d(channels, int(base * width), 3, padding=1, bias=False)
            norm = nn.BatchNorm2d(int(base * width))
            ours, running = params[f"conv{number}"], statistics[f"conv{number}"]["norm"]
            _fill(conv.weight, np.transpose(ours["conv"]["kernel"], (3, 2, 0, 1)))
            for tensor, values in (
                (norm.weight, ours["norm"]["scale"]),
                (norm.bias, ours["norm"]["bias"]),
                (norm.running_mean, running["mean"]),
                (norm.running_var, running["var"]),
            ):
                _fill(tensor, values)
            layers |= {f"conv{number}": conv, f"norm{number}": norm, f"relu{number}": nn.ReLU()}
            channels = int(base * width)
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    head = nn.Linear(channels, classes)
    _fill(head.weight, np.asarray(params["head"]["kernel"]).T)
    _fill(head.bias, params["head"]["bias"])
    layers |= {"mean": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": head}
    return nn.Sequential(layers).eval().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def channels_last(images: Any) -> torch.Tensor:
    """Images `[n h w c]` as a torch tensor `[n c h w]` in channels-last layout."""
    return torch.tensor(np.asarray(images).transpose(0, 3, 1, 2).copy()).to(memory_format=torch.channels_last)


def _fill(tensor: Any, values: Any) -> None:
    with torch.no_grad():
        tensor.copy_(torch.tensor(np.array(values)))
