"""What is measured of one network on the fixed sample, through training and of the finished one alike."""

from mi_jax.runs.context import RunContext
from mi_jax.records.table import Record
from mi_jax.measure.information import information_plane
from mi_jax.measure.accuracy import adversarial_examples, attack_columns, performance
from mi_jax.training import Diverged
from mi_jax.typing import Variables


def probe(context: RunContext, seed: int, variables: Variables, *, information: bool = True) -> list[Record]:
    """Loss and accuracy on the sample, and if wanted on its adversarial examples, with what every layer tells of both.

    Raises:
        Diverged: where the loss is not finite: there is nothing to attack then.
    """
    network, (images, labels), attack = context.network, context.sample, context.config.attack
    rows = performance(network, variables, images, labels, inputs="clean")
    if not rows[0].ok:  # as a record is whose value is not finite
        raise Diverged(f"the loss of seed {seed} on the fixed sample is not finite")
    if not information:
        return rows
    adversarial_images = adversarial_examples(network, variables, images, labels, attack=attack)
    rows += performance(network, variables, adversarial_images, labels, inputs="adversarial", **attack_columns(attack))
    context.robust_accuracy = rows[-1].value
    noise_variances, config = context.noise_variances(seed), context.config.probe
    return rows + information_plane(
        network, variables, images, adversarial_images, labels,
        noise_variances=noise_variances, config=config, attack=attack,
    )  # fmt: skip
