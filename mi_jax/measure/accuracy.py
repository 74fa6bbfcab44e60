"""Loss and accuracy on clean images, on adversarial examples and under a strong attack. Trains nothing."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD, pgd
from mi_jax.batches import BATCH_SIZE, map_batches
from mi_jax.models import Network
from mi_jax.records.table import Record
from mi_jax.training import evaluate
from mi_jax.typing import Images, Key, Labels, Variables


def robustness(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, attack: PGD
) -> tuple[list[Record], Images]:
    """Accuracy on the images and under the attack, as records of the final network, and the adversarial images.

    Args:
        network: what is attacked.
        variables: its variables.
        images: test images in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: of the random starts.
        attack: an image counts as robust if no restart changes its class.
    """
    _, accuracy = evaluate(network, variables, images, labels)
    result = _attacked(network, variables, images, labels, key, attack=attack)
    robust = 1 - float(np.mean(result.success))
    note = f"final {describe(attack)}"
    rows = [
        accuracy_row(accuracy, len(labels), inputs="clean", note="final"),
        accuracy_row(robust, len(labels), inputs="adversarial", note=note),
    ]
    return rows, result.images


def misclassified_under(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, attack: PGD
) -> np.ndarray:
    """Whether the attack leaves each image misclassified, bool `[n]`; clean errors count."""
    return np.asarray(_attacked(network, variables, images, labels, key, attack=attack).success)


def transfer(network: Network, variables: Variables, images: Images, labels: Labels, *, source: str) -> Record:
    """Accuracy on adversarial images that were made on the network of another training, as a record.

    Args:
        network: what is evaluated.
        variables: its variables.
        images: adversarial images of the source, `[n h w c]`.
        labels: int `[n]`.
        source: the training on whose network they were made.
    """
    _, accuracy = evaluate(network, variables, images, labels)
    row = accuracy_row(accuracy, len(labels), inputs="adversarial", note=f"made on {source}")
    return dataclasses.replace(row, quantity="transfer_accuracy", subset=f"source={source}")


def _attacked(network, variables, images, labels, key, *, attack: PGD) -> Any:
    """Images and success of the attack, in batches; every batch has random starts of its own."""
    starts = jnp.arange(0, len(labels), BATCH_SIZE)
    keys = iter(jax.random.split(key, len(starts)))

    def batch(x, y):
        result = pgd(network.logits, variables, x, y, next(keys), config=attack)
        return _Attacked(result.images, result.success)

    return map_batches(batch, images, labels)


class _Attacked(NamedTuple):
    images: Images
    success: Any


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
    record = accuracy_row(accuracy, len(labels), inputs=inputs, note=note)
    return [dataclasses.replace(record, quantity="loss", value=loss, stderr=None, unit="nats"), record]


def adversarial_examples(
    network: Network, variables: Variables, images: Images, labels: Labels, *, attack: PGD
) -> Images:
    """The adversarial example of each image for this very network, from the image itself (no random start)."""
    plain = dataclasses.replace(attack, random_start=False, restarts=1)

    def adversarial_images(x, y):
        return pgd(network.logits, variables, x, y, config=plain).images

    return map_batches(adversarial_images, images, labels)


def attack_columns(attack: PGD) -> dict[str, Any]:
    """The columns of a record that say by which attack adversarial inputs were made.

    Examples:
        >>> attack_columns(PGD(norm="l2", eps=0.5, steps=20))
        {'attack': 'pgd', 'norm': 'l2', 'eps': 0.5, 'attack_steps': 20, 'restarts': 1}
    """
    return {
        "attack": "pgd",
        "norm": attack.norm,
        "eps": attack.eps,
        "attack_steps": attack.steps,
        "restarts": attack.restarts,
    }


def describe(attack: PGD) -> str:
    """The attack in a few words, such as `pgd-20 linf eps=8/255`.

    Examples:
        >>> describe(PGD(steps=20, restarts=5))
        'pgd-20x5 linf eps=8/255'
    """
    restarts = f"x{attack.restarts}" if attack.restarts > 1 else ""
    return f"pgd-{attack.steps}{restarts} {attack.norm} eps={radius(attack.norm, attack.eps)}"


def radius(norm: str, eps: float) -> str:
    """A radius in words: in 255ths of the pixel range under linf."""
    return f"{eps * 255:.4g}/255" if norm == "linf" else f"{eps:.4g}"


def accuracy_row(value: float, n: int, **columns: Any) -> Record:
    """A test accuracy with its binomial standard error."""
    error = float(np.sqrt(value * (1 - value) / n))
    return Record(quantity="accuracy", value=value, stderr=error, unit="1", n=n, subset="test", **columns)
