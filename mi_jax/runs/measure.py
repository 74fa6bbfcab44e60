"""What is measured of one network on the fixed sample, through training and of the finished one alike."""

from mi_jax.runs.context import Setup
from mi_jax.records.table import Record
from mi_jax.measure.information import information_plane
from mi_jax.measure.accuracy import adversarial_twins, describe, performance
from mi_jax.training import Diverged
from mi_jax.typing import Variables


def probe(setup: Setup, seed: int, variables: Variables, *, information: bool = True) -> list[Record]:
    """Loss and accuracy on the sample, and if wanted on its twins, with what every layer tells of both.

    Raises:
        Diverged: where the loss is not finite: there is nothing to attack then.
    """
    network, (images, labels), attack = setup.network, setup.sample, setup.config.attack
    rows = performance(network, variables, images, labels, inputs="clean")
    if not rows[0].ok:  # as a record is whose value is not finite
        raise Diverged(f"the loss of seed {seed} on the fixed sample is not finite")
    if not information:
        return rows
    twins = adversarial_twins(network, variables, images, labels, attack=attack)
    rows += performance(network, variables, twins, labels, inputs="adversarial", note=describe(attack))
    setup.robust_accuracy = rows[-1].value
    rulers, config = setup.rulers(seed), setup.config.probe
    return rows + information_plane(network, variables, images, twins, labels, rulers=rulers, config=config)
