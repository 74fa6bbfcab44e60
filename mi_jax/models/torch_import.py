"""Networks from PyTorch checkpoints: state dicts named as by torchvision, RobustBench and common CIFAR code."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from mi_jax import checks
from mi_jax.errors import InputError
from mi_jax.models.network import Network, create, normalised_convolutions
from mi_jax.models.registry import ARCHITECTURES
from mi_jax.typing import Variables

_BLOCK_RESNET = [
    (r"^conv1$", "stem"),
    (r"^bn1$", "stem_norm"),
    (r"^layer(\d+)\.(\d+)\.", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}."),
    (r"\.bn(\d)$", r".norm\1"),
    (r"\.(?:downsample|shortcut)\.0$", ".shortcut"),
    (r"\.(?:downsample|shortcut)\.1$", ".shortcut_norm"),
    (r"^(?:fc|linear)$", "head"),
]
_WIDE_RESNET = [
    (r"^conv1$", "stem"),
    (r"^bn1$", "norm"),
    (r"^block(\d+)\.layer\.(\d+)\.", lambda m: f"stage{m[1]}_block{int(m[2]) + 1}."),
    (r"\.bn(\d)$", r".norm\1"),
    (r"\.convShortcut$", ".shortcut"),
    (r"^fc$", "head"),
]
_NAMES: dict[str, list[tuple[str, Any]]] = {
    "resnet18": _BLOCK_RESNET,
    "resnet34": _BLOCK_RESNET,
    "resnet18-imagenet": _BLOCK_RESNET,
    "preact-resnet18": [(r"^bn$", "norm"), *_BLOCK_RESNET],
    "wrn-28-10": _WIDE_RESNET,
    "wrn-34-10": _WIDE_RESNET,
}
"""For each architecture, patterns that turn the name of a PyTorch module into the path of ours, applied in order."""
_VGG = ("vgg11", "vgg13", "vgg16", "vgg19", "vgg11-imagenet")
_UNUSED = "sub_block1."
"""A copy of the first block that TRADES and RobustBench store with a WideResNet and never use."""
_COUNTERS = ("num_batches_tracked", "n_averaged")
"""Counters of updates that PyTorch keeps among the tensors."""
_NORMALISATION = {"mean": r"(?:\w+\.)*(?:mean|mu)", "std": r"(?:\w+\.)*(?:std|sigma)"}
"""By argument, the names under which checkpoints keep it as a buffer, of the model or of one of its layers."""
_WRAPPERS = r"^(module\.|model\.|_orig_mod\.|1\.)+"
"""Prefixes of parallel, compiled and sequential wrappers; the model is the second layer after a normalisation."""
_STATE_DICTS = ("state_dict", "model_state_dict", "model", "net", "ema")
_DENSE = {"classifier.0": "dense1", "classifier.3": "dense2", "classifier.6": "head"}
"""The dense layers of torchvision's VGG, the first of which reads a map of 7 x 7 positions."""
_MAP_SIDE = 7


def from_torch(
    state_dict: Mapping[str, Any],
    *,
    arch: str,
    input_shape: Sequence[int],
    num_classes: int | None = None,
    width: float = 1.0,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> tuple[Network, Variables]:
    """A network and its variables from a PyTorch state dict.

    Biases of convolutions before a batch normalisation are moved into its running mean, which gives the same outputs in
    evaluation mode.

    Args:
        state_dict: parameter names to tensors or arrays, or a checkpoint that holds them under a name such as
            `state_dict`, `model` or `net`; the prefixes `module.`, `model.`, `_orig_mod.` and `1.` are removed.
        arch: `resnet18` (a 7 x 7 first convolution makes it `resnet18-imagenet`, torchvision's), `resnet34`,
            `preact-resnet18` (with a last normalisation), `wrn-28-10`, `wrn-34-10` or a `vgg` with batch normalisation
            and one linear layer (three make `vgg11` the `vgg11-imagenet` of torchvision).
        input_shape: height, width, channels of an image.
        num_classes: number of logits; None for as many as the last layer has.
        width: multiplier of every layer's width.
        mean: subtracted from the images, as the PyTorch model or its pipeline did; None for what the state dict holds
            under `mean` or `mu`, in the model or one of its layers, else 0.
        std: divides the centred images; None for what it holds under `std` or `sigma`, else 1.

    Raises:
        InputError: when the architecture cannot be imported, a parameter is missing, of another shape or not finite, or
            the state dict holds a tensor that the network has no use for, or two that may be the mean or std.
    """
    name = ARCHITECTURES.resolve(arch)
    if name not in (*_NAMES, *_VGG):
        raise InputError(f"{name} cannot be imported from PyTorch; choose from {', '.join([*_NAMES, *_VGG])}.")
    state_dict = _state_dict_in(state_dict)
    modules = _modules(state_dict)
    stem = modules.get("conv1", {}).get("weight")
    if name == "resnet18" and stem is not None and stem.shape[2:] == (7, 7):
        name += "-imagenet"
    if name == "vgg11" and set(_DENSE) <= set(modules):
        name += "-imagenet"
    renamed = _vgg_names(modules) if name in _VGG else {_renamed(module, _NAMES[name]): module for module in modules}
    head = modules.get(renamed.get("head", ""), {}).get("weight")
    if head is None or head.ndim != 2:
        raise InputError(f"The state dict has no last linear layer of a {name}; it has {_some(modules)}.")
    classes = len(head) if num_classes is None else num_classes
    centre = _stored(state_dict, "mean", 0.0) if mean is None else np.asarray(mean)
    scale = _stored(state_dict, "std", 1.0) if std is None else np.asarray(std)
    network = create(
        name, num_classes=classes, input_shape=input_shape, width=width, mean=tuple(centre.ravel().tolist()),
        std=tuple(scale.ravel().tolist()),
    )  # fmt: skip
    given = {path: modules[module] for path, module in renamed.items()}
    return network, _variables(network, given, renamed)


def read_torch_checkpoint(path: str | Path) -> dict[str, Any]:
    """The state dict in a file of `torch.save`, also where it is one entry among others, as `state_dict` or `model`.

    Reads only tensors and runs no code from the file. Needs PyTorch.

    Args:
        path: the file.

    Raises:
        InputError: where PyTorch is not installed, or the file is missing or holds no state dict of tensors.
    """
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch is needed to read its checkpoints; run `pip install torch`.") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected a file written by torch.save.") from None
    except Exception as error:  # the unpickler of another file fails in many ways
        # The first sentence: the next ones of PyTorch recommend loading the file without this protection.
        reason = str(error).splitlines()[0].partition(". ")[0] if str(error) else type(error).__name__
        raise InputError(f"{path} is not a file written by torch.save that holds only tensors ({reason}).") from None
    try:
        return _state_dict_in(found)
    except InputError:
        raise InputError(f"{path} holds no state dict: expected one, or one under {', '.join(_STATE_DICTS)}.") from None


def _state_dict_in(checkpoint: Any) -> dict[str, Any]:
    """The tensors by name in a state dict, or in a checkpoint with a state dict among its entries."""
    while isinstance(checkpoint, Mapping):
        inner = [checkpoint[name] for name in _STATE_DICTS if isinstance(checkpoint.get(name), Mapping)]
        if not inner:
            break
        checkpoint = inner[0]
    entries = checkpoint.items() if isinstance(checkpoint, Mapping) else ()
    found = {name: value for name, value in entries if isinstance(name, str) and hasattr(value, "shape")}
    if not found:
        kind = type(checkpoint).__name__
        raise InputError(f"state_dict must map names to tensors; got a {kind}. A torch module has it as .state_dict().")
    return found


def _stored(state_dict: Mapping[str, Any], argument: str, default: float) -> np.ndarray:
    """The normalisation of images that the state dict holds in place of the argument `mean` or `std`."""
    keys = [key for key in state_dict if re.fullmatch(_NORMALISATION[argument], key)]
    if len(keys) > 1:
        raise InputError(
            f"The state dict holds both {keys[0]} and {keys[1]}; pass the one that normalises the images as "
            f"{argument}=."
        )
    return _array(state_dict[keys[0]]) if keys else np.asarray(default)


def _array(value: Any) -> np.ndarray:
    return np.asarray(checks.array(value, name="A parameter"))


def _modules(state_dict: Mapping[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """Module name to its tensors, without prefixes of wrappers; refuses what is neither these nor to be left out."""
    modules: dict[str, dict[str, np.ndarray]] = {}
    for key, value in state_dict.items():
        name = re.sub(_WRAPPERS, "", key)
        module, _, tensor = name.rpartition(".")
        if name.startswith(_UNUSED) or tensor in _COUNTERS:
            continue
        if module and tensor in ("weight", "bias", "running_mean", "running_var"):
            modules.setdefault(module, {})[tensor] = _array(value)
        elif not any(re.fullmatch(pattern, key) for pattern in _NORMALISATION.values()):
            raise InputError(
                f"The state dict holds {key}, which no layer takes; leave it out, and if it normalises the images, "
                "pass mean= and std=."
            )
    return modules


def _renamed(module: str, patterns: list[tuple[str, Any]]) -> str:
    for pattern, replacement in patterns:
        module = re.sub(pattern, replacement, module)
    return module


def _vgg_names(modules: Mapping[str, dict[str, np.ndarray]]) -> dict[str, str]:
    """Convolutions and normalisations of `features`, numbered in order, and the classifier."""
    names, block = {}, 0
    ordered = sorted((m for m in modules if re.fullmatch(r"features\.\d+", m)), key=lambda m: int(m.split(".")[1]))
    for module in ordered:
        if "weight" not in modules[module]:
            raise InputError(f"The state dict has {', '.join(modules[module])} of {module} but no {module}.weight.")
        convolution = modules[module]["weight"].ndim == 4
        block += convolution
        names[f"conv{block}.{'conv' if convolution else 'norm'}"] = module
    rest = [module for module in modules if module not in ordered]
    if set(rest) == set(_DENSE):
        return names | {_DENSE[module]: module for module in rest}
    return names | {"head" if len(rest) == 1 else module: module for module in rest}


def _variables(network: Network, given: dict[str, dict[str, np.ndarray]], names: dict[str, str]) -> Variables:
    shapes = jax.eval_shape(network.init, jax.random.key(0))
    expected = {tuple(entry.key for entry in path): leaf.shape for path, leaf in jax.tree.leaves_with_path(shapes)}
    convolutions, used = normalised_convolutions(network), set()

    def value(path: tuple[str, ...]) -> np.ndarray:
        _, *parts, leaf = path
        module = ".".join(parts)
        tensors = given.get(module, {})
        name = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}.get(leaf, leaf)
        array = tensors.get(name)
        used.add((module, name))
        if leaf == "kernel" and array is not None:
            weight = array
            if module == "dense1" and weight.shape[1] % _MAP_SIDE**2 == 0:  # channels come first in PyTorch's map
                weight = weight.reshape(len(weight), -1, _MAP_SIDE, _MAP_SIDE).transpose(0, 2, 3, 1)
                weight = weight.reshape(len(weight), -1)
            array = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        if array is not None and leaf == "mean" and module in convolutions:
            convolution = convolutions[module]
            bias = given.get(convolution, {}).get("bias")
            used.add((convolution, "bias"))
            if bias is not None and bias.shape != array.shape:
                raise InputError(
                    f"The state dict does not fit {network.arch}: {names[convolution]}.bias must have shape "
                    f"{list(array.shape)}; found shape {list(bias.shape)}."
                )
            array = array if bias is None else array - bias
        if array is None or array.shape != expected[path]:
            found = "nothing" if array is None else f"shape {list(array.shape)}"
            source = f" ({names[module]} of the state dict)" if module in names else ""
            raise InputError(
                f"The state dict does not fit {network.arch}: {module}.{leaf}{source} must have shape "
                f"{list(expected[path])}; found {found}."
            )
        values = np.asarray(array, np.float32)
        if not np.isfinite(values).all():
            raise InputError(f"The state dict holds NaN or infinite values in {names.get(module, module)}.")
        return values

    variables = jax.tree.map_with_path(lambda path, _: value(tuple(entry.key for entry in path)), shapes)
    unknown = sorted((module, tensor) for module in given for tensor in given[module] if (module, tensor) not in used)
    if unknown:
        module, tensor = unknown[0]
        known = any(module == other for other, _ in used)
        raise InputError(
            f"The state dict does not fit {network.arch}, which has no {names[module]}{f'.{tensor}' if known else ''}."
        )
    return jax.tree.map(jax.numpy.asarray, variables)


def _some(modules: Mapping[str, Any]) -> str:
    return ", ".join(list(modules)[-3:]) or "no parameters"
