"""Information against the noise variance: the full curve, on which every noise rule picks one point.

Rescaling a layer only shifts its curve along the axis of the noise variance, so the shapes of curves can be compared
between trainings whatever their scales.
"""

import numpy as np

from mi_jax import information
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.accuracy import adversarial_examples, attack_columns
from mi_jax.measure.information import activations
from mi_jax.records.table import Record, information_record
from mi_jax.statistics.jackknife import BLOCKS
from mi_jax.studies.registry import StudyInput, StudyResult

LEVELS = 33
RULE = "grid"
_QUANTITIES = ("i_tx_upper", "i_ty_certified_upper", "i_ty_certified_lower")


def measure(study_input: StudyInput) -> StudyResult:
    """Bounds of every layer at `LEVELS` noise variances in factors of two, on clean images and adversarial examples.

    The grid of a layer is centred on the trace rule at the untrained network, so all trainings of a seed share it. The
    images are those of the run's own measurement. The lower bound on I(X;T) is the upper one at four times the
    variance, two levels up, and is not repeated. The attack knows the labels, so that I(T;Y) on adversarial examples
    is no information about the clean image, see `records.labels.LABEL_LEAK`.
    """
    images, labels = fixed_sample(
        study_input.dataset.test.images, study_input.dataset.test.labels, study_input.information.samples
    )
    start = study_input.untrained()
    reference = activations(study_input.network, study_input.variables if start is None else start, images)
    adversarial_images = adversarial_examples(
        study_input.network, study_input.variables, images, labels, attack=study_input.attack
    )
    records = []
    attack = attack_columns(study_input.attack)
    for inputs, shown, made_by in (("clean", images, {}), ("adversarial", adversarial_images, attack)):
        for layer, tap in activations(study_input.network, study_input.variables, shown).items():
            columns = {"image_set": "test", "inputs": inputs, **made_by, "layer": layer, "n": len(labels)}
            columns |= {"estimator": "kde", "noise_rule": RULE}
            try:
                grid = information.noise_grid(information.noise_variance(reference[layer], rule="trace"), levels=LEVELS)
                found = information.kde(
                    tap, labels, noise_variance=grid, num_classes=study_input.network.num_classes, blocks=BLOCKS
                )
            except InputError as reason:
                records.append(Record(quantity="i_tx_upper", value=None, ok=False, note=str(reason), **columns))
                continue
            values = {name: np.asarray(getattr(found, name)) for name in _QUANTITIES}
            saturated, error = np.asarray(found.saturated), np.asarray(found.error)
            left_out = (found.without_block or {})["i_tx_upper"]
            records += [
                information_record(
                    name,
                    value[i],
                    noise_variance=variance,
                    saturated=bool(saturated[i]),
                    numerical_error=error[i],
                    without_block=np.asarray(left_out[i]) if inputs == "clean" and name == "i_tx_upper" else None,
                    **columns,
                )
                for i, variance in enumerate(grid)
                for name, value in values.items()
            ]
    return StudyResult(records)
