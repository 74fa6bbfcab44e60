"""Information against the noise level: the whole curve, of which every ruler takes one point.

A layer that is rescaled moves along the axis of noise and changes nothing else, so shapes of curves compare trainings
whatever their scales.
"""

import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import adversarial_twins
from mi_jax.measure.information import activations
from mi_jax.records.table import Record, in_bits
from mi_jax.studies.registry import Findings, Study, Subject, register

LEVELS = 33
RULE = "grid"
_QUANTITIES = ("i_tx_upper", "i_ty_certified_upper", "i_ty_certified_lower")


def noise_grid(subject: Subject) -> Findings:
    """Bounds of every layer at `LEVELS` noise variances in factors of two, on clean images and on their twins.

    The grid of a layer is centred on the trace rule at the untrained network, so all trainings of a seed share it. The
    images are those of the run's own measurement. The lower bound on I(X;T) is the upper one at four times the
    variance, two levels on, and is not repeated.
    """
    images, labels = fixed_sample(subject.dataset.test.images, subject.dataset.test.labels, subject.probe.samples)
    start = subject.untrained()
    reference = activations(subject.network, subject.variables if start is None else start, images)
    twins = adversarial_twins(subject.network, subject.variables, images, labels, attack=subject.attack)
    records = []
    for inputs, shown in (("clean", images), ("adversarial", twins)):
        for layer, tap in activations(subject.network, subject.variables, shown).items():
            columns = {"layer": layer, "inputs": inputs, "n": len(labels), "estimator": "kde", "noise_rule": RULE}
            try:
                grid = information.noise_grid(information.noise_variance(reference[layer], rule="trace"), levels=LEVELS)
                found = information.kde(tap, labels, noise_variance=grid, num_classes=subject.network.num_classes)
            except InputError as reason:
                records.append(Record(quantity="i_tx_upper", value=None, ok=False, note=str(reason), **columns))
                continue
            values = {name: np.asarray(getattr(found, name)) for name in _QUANTITIES}
            saturated = np.asarray(found.saturated)
            records += [
                in_bits(name, value[i], noise_variance=variance, saturated=bool(saturated[i]), **columns)
                for i, variance in enumerate(grid)
                for name, value in values.items()
            ]
    return Findings(records)


STUDY = register(
    Study(
        name="noise_grid",
        title="Information at every noise level, the curve of which a ruler is one point",
        run=noise_grid,
    )
)
