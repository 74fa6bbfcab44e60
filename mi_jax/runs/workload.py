"""The work of the stages of a run in forward passes of one image, for the share that is done and the time left."""

import math

from mi_jax.models import Network
from mi_jax.runs.config import RunConfig
from mi_jax.training import OBJECTIVES, held_out_attack

ESTIMATORS = 10
"""Information of all layers on clean and adversarial inputs, per image: of a small network on a CPU."""
STUDY = 60
"""A study, per image: most attack the network a few times."""
AUTOATTACK = 5000
"""AutoAttack `standard`, per image, where it breaks half of the images: 9,720 for one that it does not break."""

FLOPS_PER_NUMBER = 1000
"""Operations of a matrix product in the time that a CPU takes for one number of an activation: to write, read and
normalise it. Measured on two cores: 430 (CNN), 510 (VGG-11 of width 1/8), 1,500 (LeNet-5), 2,500 (WRN-10-1)."""

REPORT_FLOPS = 3e12
"""Figures and page: some 15 s of a processor that computes matrix products at 2e11 operations per second."""


def of_forward(network: Network) -> float:
    """Operations of a matrix product that take a CPU as long as a forward pass of one image."""
    return network.flops + FLOPS_PER_NUMBER * sum(math.prod(shape) for shape in network.tap_shapes.values())


def of_training(
    config: RunConfig, training: str, *, examples: int, held_out: int, measured: int, samples: int
) -> float:
    """The work of one training of one seed: updates and measurements.

    Args:
        config: configuration of the run.
        training: the objective.
        examples, held_out: images that are trained on, and held out.
        measured: epochs at which information is measured.
        samples: images on which it is measured.
    """
    steps, adversarial = config.attack.steps, OBJECTIVES[training].adversarial
    updates = (
        config.epochs * examples * (OBJECTIVES[training].forwards(steps) + (3 if config.awp and adversarial else 0))
    )
    if held_out:
        updates += config.epochs * held_out * (2 * held_out_attack(config.attack).steps + 2)
    measurement = 2 * steps + 3 + ESTIMATORS
    if config.information.label_free == "epochs":
        measurement += _label_free(config)
    return float(updates + measured * samples * measurement)


def of_evaluation(config: RunConfig, *, test: int, samples: int) -> float:
    """The work of evaluating a seed's finished networks, under strong attacks and on label-free adversarial examples.

    Args:
        config: configuration of the run.
        test: test images.
        samples: images on which information is measured.
    """
    evaluation, strong = config.evaluation, config.final_attack
    work = min(test, evaluation.samples) * strong.restarts * (2 * strong.steps + 3)
    if evaluation.autoattack:
        work += min(test, evaluation.autoattack_samples) * AUTOATTACK
    work += min(test, evaluation.checks) * AUTOATTACK
    if config.information.label_free == "finished":
        work += samples * _label_free(config)
    return float(work * len(config.trainings))


def of_study(name: str, samples: int) -> float:
    """The work of one study of one network."""
    return float(samples * (AUTOATTACK if name == "autoattack" else STUDY))


def _label_free(config: RunConfig) -> float:
    """Two attacks on an image, and the estimators on what they made."""
    return float(2 * (2 * config.attack.steps + 2) + ESTIMATORS)
