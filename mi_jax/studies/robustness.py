"""Loss and accuracy on clean images, on adversarial twins and under a strong attack. Trains nothing."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD, pgd
from mi_jax.batches import BATCH_SIZE, map_batches
from mi_jax.models import Network
from mi_jax.storage.records import Record
from mi_jax.training import evaluate
from mi_jax.typing import Images, Key, Labels, Variables


def robustness(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, attack: PGD
) -> list[Record]:
    """Accuracy on the images and under the attack, as records of the final network.

    Args:
        network: what is attacked.
        variables: its variables.
        images: test images in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: of the random starts.
        attack: an image counts as robust if no restart changes its class.
    """
    _, accuracy = evaluate(network, variables, images, labels)
    wrong = misclassified_under(network, variables, images, labels, key, attack=attack)
    return [
        _accuracy(accuracy, len(labels), inputs="clean", note="final"),
        _accuracy(1 - float(np.mean(wrong)), len(labels), inputs="adversarial", note=f"final {describe(attack)}"),
    ]


def misclassified_under(
    network: Network,
    variables: Variables,
    images: Images,
    labels: Labels,
    key: Key,
    *,
    attack: PGD,
) -> np.ndarray:
    """Whether the attack leaves each image misclassified, bool `[n]`; clean errors count."""
    starts = jnp.arange(0, len(labels), BATCH_SIZE)
    keys = iter(jax.random.split(key, len(starts)))

    def success(x, y):
        return pgd(network.logits, variables, x, y, next(keys), config=attack).success

    return np.asarray(map_batches(success, images, labels))


def performance(
    network: Network, variables: Variables, images: Images, labels: Labels, *, inputs: str, note: str | None = None
) -> list[Record]:
    """Loss (nats) and accuracy on the given images, as records of a moment in training.

    Args:
        network: what is evaluated.
        variables: its variables.
        images: in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        inputs: what the images are: `clean`, `adversarial`, ...
        note: how they were made.
    """
    loss, accuracy = evaluate(network, variables, images, labels)
    record = _accuracy(accuracy, len(labels), inputs=inputs, note=note)
    return [dataclasses.replace(record, quantity="loss", value=loss, stderr=None, unit="nats"), record]


def adversarial_twins(network: Network, variables: Variables, images: Images, labels: Labels, *, attack: PGD) -> Images:
    """The adversarial twin of each image for this very network, from the image itself (no random start)."""
    plain = dataclasses.replace(attack, random_start=False, restarts=1)

    def twins(x, y):
        return pgd(network.logits, variables, x, y, config=plain).images

    return map_batches(twins, images, labels)


def describe(attack: PGD) -> str:
    """The attack in a few words, such as `pgd-20 linf eps=8/255`.

    Examples:
        >>> describe(PGD(steps=20, restarts=5))
        'pgd-20x5 linf eps=8/255'
    """
    restarts = f"x{attack.restarts}" if attack.restarts > 1 else ""
    pixels = attack.eps * 255
    eps = f"{pixels:.4g}/255" if attack.norm == "linf" else f"{attack.eps:.4g}"
    return f"pgd-{attack.steps}{restarts} {attack.norm} eps={eps}"


def _accuracy(value: float, n: int, **columns: Any) -> Record:
    error = float(np.sqrt(value * (1 - value) / n))
    return Record(quantity="accuracy", value=value, stderr=error, unit="1", n=n, subset="test", **columns)
