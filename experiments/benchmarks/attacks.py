"""Times attacks against torchattacks, foolbox and pyautoattack on the same network, weights and images.

Prints seconds, ratios and robust accuracies. Trains its own small network. Needs the extra `bench`.
"""

import copy
import dataclasses
import statistics
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits
from timing import timed  # pyright: ignore[reportMissingImports]

from mi_jax.attacks import APGD, PGD, apgd, autoattack, perturb, pgd
from mi_jax.models.convolution import conv2d

SIDE, WIDTHS, EPS, STEP = 32, (16, 32, 64), 0.1, 0.025
TARGETS = {"PGD-10": 1.2, "PGD-100 x 5": 2.0, "AutoAttack": 2.0}


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of one attack in mi_jax and in another package, and the robust accuracy of each."""

    attack: str
    peer: str
    ours: float
    theirs: float
    our_accuracy: float
    their_accuracy: float

    @property
    def ratio(self) -> float:
        """How many times as fast as the other package."""
        return self.theirs / self.ours


def main(*, images: int = 256, repeats: int = 3, quick: bool = False) -> list[Timing]:
    """Time the attacks on digits (32 x 32 x 3) and print a table.

    Args:
        images: number of images.
        repeats: how often short attacks run, in turn with the other packages; their medians are compared without
            compile time, while AutoAttack includes it.
        quick: use 32 images and 20 steps instead of 100, as a smoke test.
    """
    count, long = (32, 20) if quick else (images, 100)
    x, y = digits()
    variables = adversarially_trained(x[:1500], y[:1500])
    comparison = Comparison(variables, x[-count:], y[-count:], repeats)
    print(f"{count} images of {SIDE} x {SIDE} x 3, {jax.default_backend()}, jax {jax.__version__}")
    print(
        f"{'attack':<14}{'package':<16}{'ours s':>9}{'theirs s':>10}{'ratio':>7}{'target':>8}{'robust':>9}{'theirs':>8}"
    )
    timings = []
    for run in (
        lambda: comparison.pgd(10),
        lambda: comparison.restarts(long, 5),
        lambda: comparison.apgd(long),
        lambda: [comparison.autoattack(quick=quick)],
    ):
        for timing in run():
            timings.append(timing)
            print(line(timing), flush=True)
    return timings


def line(t: Timing) -> str:
    """A line of the table."""
    return (
        f"{t.attack:<14}{t.peer:<16}{t.ours:>9.2f}{t.theirs:>10.2f}{t.ratio:>7.2f}{TARGETS.get(t.attack, '-'):>8}"
        f"{t.our_accuracy:>9.3f}{t.their_accuracy:>8.3f}"
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Scikit-learn's digits, enlarged to 32 x 32 pixels, as light on dark, dim, and dark on light in the channels."""
    pixels, labels = load_digits(return_X_y=True)
    eight = np.asarray(pixels, np.float32).reshape(-1, 8, 8) / 16
    grey = np.kron(eight, np.ones((1, SIDE // 8, SIDE // 8), np.float32))
    return np.stack([grey, grey / 2, 1 - grey], axis=-1), np.asarray(labels, np.int32)


def network(variables: Any, x: jax.Array) -> jax.Array:
    """Three convolutions, each followed by average pooling, and a dense layer: logits [b 10]."""
    for level in range(len(WIDTHS)):
        x = jax.nn.relu(conv2d(x, variables[f"kernel{level}"], padding=1) + variables[f"bias{level}"])
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).mean(axis=(2, 4))
    return x.reshape(len(x), -1) @ variables["dense"] + variables["offset"]


def adversarially_trained(x: np.ndarray, y: np.ndarray, *, epochs: int = 4) -> dict[str, jax.Array]:
    """Variables of the network after a few epochs of PGD training, in one compiled call."""
    random = np.random.default_rng(0)
    variables, channels = {}, 3
    for level, width in enumerate(WIDTHS):
        scale = np.sqrt(2 / (9 * channels))
        variables[f"kernel{level}"] = jnp.asarray(random.normal(0, scale, (3, 3, channels, width)), jnp.float32)
        variables[f"bias{level}"] = jnp.zeros(width)
        channels = width
    features = (SIDE // 8) ** 2 * channels
    variables["dense"] = jnp.asarray(random.normal(0, np.sqrt(1 / features), (features, 10)), jnp.float32)
    variables["offset"] = jnp.zeros(10)
    order = np.concatenate([random.permutation(len(x))[: len(x) // 64 * 64].reshape(-1, 64) for _ in range(epochs)])
    optimiser = optax.adam(2e-3)
    attack = PGD(eps=EPS, steps=4, step_size=0.04, random_start=False)
    images, labels = jnp.asarray(x), jnp.asarray(y)

    def loss(v, a, b):
        return optax.softmax_cross_entropy_with_integer_labels(network(v, a), b).mean()

    def step(carry, chosen):
        v, state = carry
        a = perturb(network, v, images[chosen], labels[chosen], config=attack)
        updates, state = optimiser.update(jax.grad(loss)(v, a, labels[chosen]), state)
        return (optax.apply_updates(v, updates), state), None

    run = jax.jit(lambda carry, order: jax.lax.scan(step, carry, order)[0][0])
    return run((variables, optimiser.init(variables)), jnp.asarray(order))


def torch_network(variables: dict[str, jax.Array]):
    """The same network in torch, channels last, without gradients for its weights."""
    import torch

    layers: list[torch.nn.Module] = []
    channels = 3
    for level, width in enumerate(WIDTHS):
        conv = torch.nn.Conv2d(channels, width, 3, padding=1)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(np.asarray(variables[f"kernel{level}"]).transpose(3, 2, 0, 1).copy()))
            conv.bias.copy_(torch.tensor(np.asarray(variables[f"bias{level}"])))  # pyright: ignore[reportOptionalMemberAccess]
        layers += [conv, torch.nn.ReLU(), torch.nn.AvgPool2d(2)]
        channels = width
    side = SIDE // 8
    dense = torch.nn.Linear(side * side * channels, 10)
    rows = np.asarray(variables["dense"]).reshape(side, side, channels, 10).transpose(3, 2, 0, 1).reshape(10, -1)
    with torch.no_grad():
        dense.weight.copy_(torch.tensor(rows.copy()))
        dense.bias.copy_(torch.tensor(np.asarray(variables["offset"])))
    copied = torch.nn.Sequential(*layers, torch.nn.Flatten(), dense).eval()
    return copied.requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


class Comparison:
    """Times attacks on one network and one set of images, in mi_jax and in other packages."""

    def __init__(self, variables: dict[str, jax.Array], x: np.ndarray, y: np.ndarray, repeats: int):
        import torch

        self.variables, self.repeats = variables, repeats
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        self.torch_network = torch_network(variables)
        tensor = torch.tensor(x.transpose(0, 3, 1, 2).copy())
        self.torch_x, self.torch_y = tensor.to(memory_format=torch.channels_last), torch.tensor(y).long()
        self.key = jax.random.key(0)

    def pgd(self, steps: int) -> list[Timing]:
        """One run of PGD, against torchattacks and foolbox."""
        import foolbox
        import torchattacks

        config = PGD(eps=EPS, steps=steps, step_size=STEP)
        model = foolbox.PyTorchModel(self.torch_network, bounds=(0, 1), device="cpu")
        other = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps)
        peers = {
            "torchattacks": lambda: torchattacks.PGD(self.torch_network, EPS, STEP, steps)(self.torch_x, self.torch_y),
            "foolbox": lambda: other.run(model, self.torch_x, self.torch_y, epsilon=EPS),
        }
        return self._short(f"PGD-{steps}", lambda: self._plain(config), peers)

    def restarts(self, steps: int, restarts: int) -> list[Timing]:
        """PGD with restarts; both packages skip images that are already broken."""
        import torchattacks

        attack = PGD(steps=steps, step_size=STEP, restarts=restarts)
        single = [torchattacks.PGD(self.torch_network, EPS, STEP, steps) for _ in range(restarts)]
        peers = {"torchattacks": lambda: torchattacks.MultiAttack(single)(self.torch_x, self.torch_y)}

        def ours() -> float:
            x, y = np.asarray(self.x), np.asarray(self.y)
            result = autoattack(network, self.variables, x, y, self.key, eps=EPS, version=[attack])
            return result.robust_accuracy

        return self._short(f"PGD-{steps} x {restarts}", ours, peers, repeats=1)

    def apgd(self, steps: int) -> list[Timing]:
        """Auto-PGD on cross-entropy, in one compiled call, against pyautoattack."""
        from pyautoattack.autopgd_base import APGDAttack

        config = APGD(eps=EPS, steps=steps)
        peer = APGDAttack(self.torch_network, n_iter=steps, norm="Linf", eps=EPS, device="cpu")

        def ours() -> float:
            result = apgd(network, self.variables, self.x, self.y, self.key, config=config)
            return 1 - float(result.success.mean())

        peers = {"pyautoattack": lambda: peer.perturb(self.torch_x, self.torch_y)}
        return self._short(f"APGD-{steps}", ours, peers, repeats=1)

    def autoattack(self, *, quick: bool) -> Timing:
        """AutoAttack standard (quick: its first stage), compile time included; pyautoattack needs channels first."""
        import torch
        from pyautoattack import AutoAttack

        plain = copy.deepcopy(self.torch_network).to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        peer = AutoAttack(plain, norm="Linf", eps=EPS, seed=0)
        if quick:
            peer.attacks_to_run = ["apgd-ce"]
        shown = self.torch_x.contiguous(memory_format=torch.contiguous_format)
        x, y = np.asarray(self.x), np.asarray(self.y)
        version = ["apgd-ce"] if quick else "standard"
        theirs, images = timed(lambda: peer.run_standard_evaluation(shown, self.torch_y)[0])
        accuracy = self._torch_accuracy(images)
        ours, result = timed(lambda: autoattack(network, self.variables, x, y, self.key, eps=EPS, version=version))
        for stage in result.stages:
            print(f"  {stage.name:<8} {stage.attacked:>4} attacked {stage.broken:>4} broken {stage.seconds:8.2f} s")
        return Timing("AutoAttack", "pyautoattack", ours, theirs, result.robust_accuracy, accuracy)

    def _plain(self, config: PGD) -> float:
        result = pgd(network, self.variables, self.x, self.y, self.key, config=config)
        return 1 - float(result.success.mean())

    def _torch_accuracy(self, images: Any) -> float:
        import torch

        with torch.no_grad():
            return float((self.torch_network(images).argmax(1) == self.torch_y).float().mean())

    def _short(
        self, name: str, ours: Callable[[], float], peers: dict[str, Callable[[], Any]], *, repeats: int | None = None
    ) -> list[Timing]:
        ours()
        mine, found = [], 0.0
        theirs: dict[str, list[float]] = {peer: [] for peer in peers}
        accuracies: dict[str, float] = {}
        for _ in range(repeats or self.repeats):
            seconds, found = timed(ours)
            mine.append(seconds)
            for peer, run in peers.items():
                seconds, images = timed(run)
                theirs[peer].append(seconds)
                accuracies[peer] = self._torch_accuracy(images)
        return [
            Timing(name, peer, statistics.median(mine), statistics.median(theirs[peer]), found, accuracies[peer])
            for peer in peers
        ]
