"""Loss and accuracy of a network on clean images and on adversarial examples, as records."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax.attacks import PGD, pgd
from mi_jax.batches import map_batches
from mi_jax.models import Network
from mi_jax.parallel import mesh_of
from mi_jax.records.table import Record
from mi_jax.statistics.jackknife import blocks_to_text, means_without_block
from mi_jax.training import evaluate, evaluate_each, predictions
from mi_jax.typing import Images, Key, Labels, Variables


def robustness(
    network: Network,
    variables: Variables,
    images: Images,
    labels: Labels,
    key: Key,
    *,
    attack: PGD,
    batch_size: int | None = None,
) -> tuple[list[Record], Images]:
    """Accuracy on clean test images and under attack, as records, and the adversarial images.

    Args:
        network: the network.
        variables: its variables.
        images: test images in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        key: for the random starts; that of an image depends on its index, not on its batch.
        attack: the attack; an image counts as robust if the network classifies it correctly, and no restart changes
            that.
        batch_size: images attacked at a time; None as in `map_batches`.
    """
    _, accuracy = evaluate(network, variables, images, labels)
    result = _attacked(network, variables, images, labels, key, attack=attack, batch_size=batch_size)
    robust = 1 - float(np.mean(result.success))
    rows = [
        accuracy_row(accuracy, len(labels), inputs="clean"),
        accuracy_row(robust, len(labels), inputs="adversarial", **attack_columns(attack)),
    ]
    return rows, result.images


def misclassified_under(
    network: Network, variables: Variables, images: Images, labels: Labels, key: Key, *, attack: PGD
) -> np.ndarray:
    """Whether each image is misclassified under the attack, bool `[n]`; images misclassified without it count too."""
    result = _attacked(network, variables, images, labels, key, attack=attack, batch_size=None)
    return np.asarray(result.success)


def transfer(
    network: Network, variables: Variables, images: Images, labels: Labels, *, source: str, attack: PGD
) -> Record:
    """Accuracy on adversarial images that were computed for the network of another training, as a record.

    Args:
        network: the network that is evaluated.
        variables: its variables.
        images: the adversarial images, `[n h w c]`.
        labels: int `[n]`.
        source: the training whose network they were computed for.
        attack: the attack that made them.
    """
    _, accuracy = evaluate(network, variables, images, labels)
    row = accuracy_row(accuracy, len(labels), inputs="adversarial", source=source, **attack_columns(attack))
    return dataclasses.replace(row, quantity="transfer_accuracy")


class _Attacked(NamedTuple):
    """The worst restart of each image: the adversarial image, and whether it is misclassified."""

    images: Images
    success: jax.Array


def _attacked(network, variables, images, labels, key, *, attack: PGD, batch_size: int | None) -> _Attacked:
    def batch(x, y, index):
        result = pgd(network.logits, variables, x, y, key, config=attack, index=index)
        return _Attacked(result.images, result.success)

    index = np.arange(len(labels))
    return map_batches(batch, images, labels, index, batch_size=batch_size, mesh=mesh_of(variables))


def performance(
    network: Network, variables: Variables, images: Images, labels: Labels, *, inputs: str, **columns: Any
) -> list[Record]:
    """Loss (nats) and accuracy on test images, as records.

    Args:
        network: the network.
        variables: its variables.
        images: in [0, 1], `[n h w c]`.
        labels: int `[n]`.
        inputs: what the images are: `clean`, `adversarial`, ...
        **columns: further columns of both records, such as those of `attack_columns`.
    """
    each = np.stack(evaluate_each(network, variables, images, labels), axis=-1, dtype=np.float64)
    loss, accuracy = each.mean(axis=0)
    several = len(each) > 1  # a single image tells no error
    of_loss, of_accuracy = map(blocks_to_text, means_without_block(each).T) if several else (None, None)
    record = accuracy_row(accuracy, len(labels), inputs=inputs, blocks=of_accuracy, **columns)
    error = each[:, 0].std(ddof=1) / np.sqrt(len(each)) if several else None
    return [
        dataclasses.replace(record, quantity="loss", value=loss, stderr=error, blocks=of_loss, unit="nats"),
        record,
    ]


def adversarial_examples(
    network: Network, variables: Variables, images: Images, labels: Labels, *, attack: PGD
) -> Images:
    """The adversarial example of each image for this network, starting from the image itself (no random start).

    The label is part of what the attack knows, so the examples carry it: where I(T;Y) is measured on them, see
    `label_free_examples`.
    """
    plain = dataclasses.replace(attack, random_start=False, restarts=1)

    def adversarial_images(x, y):
        return pgd(network.logits, variables, x, y, config=plain).images

    return map_batches(adversarial_images, images, labels, mesh=mesh_of(variables))


def label_free_examples(
    network: Network, variables: Variables, images: Images, key: Key, *, attack: PGD
) -> dict[str, Images]:
    """Adversarial examples from attacks that do not know the labels, by the name of the attack.

    They are functions of the image, the network and chance only, so that the information about the label in them is
    at most what the image itself has.

    Args:
        network: the network.
        variables: its variables.
        images: in [0, 1], `[n h w c]`.
        key: for the random classes.
        attack: the attack; it starts from the image itself.

    Returns:
        `pgd-prediction`, away from the class that the network predicts; `pgd-random-target`, towards a class drawn
        uniformly from the others.
    """
    plain = dataclasses.replace(attack, random_start=False, restarts=1)
    predicted = jnp.argmax(predictions(network, variables, images), -1)
    shift = jax.random.randint(key, (len(images),), 1, network.num_classes)
    targets = (predicted + shift) % network.num_classes

    def towards(x, y, target):
        return pgd(network.logits, variables, x, y, config=plain, targets=target).images

    return {
        "pgd-prediction": adversarial_examples(network, variables, images, predicted, attack=attack),
        "pgd-random-target": map_batches(towards, images, predicted, targets, mesh=mesh_of(variables)),
    }


def attack_columns(attack: PGD) -> dict[str, Any]:
    """The columns of a record that identify the attack behind adversarial inputs, one that knows the label.

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


def accuracy_row(value: float, n: int, **columns: Any) -> Record:
    """An accuracy with its binomial standard error; on the test images unless `columns` says otherwise."""
    error = float(np.sqrt(value * (1 - value) / n))
    return Record(quantity="accuracy", value=value, stderr=error, unit="1", n=n, **{"image_set": "test", **columns})
