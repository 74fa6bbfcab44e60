"""The arrays that a study stored next to the records, by training."""

import numpy as np

from mi_jax.records.run_records import RunRecords


def by_training(run_records: RunRecords, study: str, name: str) -> dict[str, list[np.ndarray]]:
    """For every training the arrays of a name, one per seed; empty if the study was not run.

    Args:
        run_records: the run.
        study: name of the study.
        name: name of the array.
    """
    arrays = run_records.arrays(study) or {}
    found: dict[str, list[np.ndarray]] = {}
    for training in run_records.trainings:
        prefix = f"{name}.{training}."
        seeds = sorted(int(key.removeprefix(prefix)) for key in arrays if key.startswith(prefix))
        if seeds:
            found[training] = [arrays[f"{prefix}{seed}"] for seed in seeds]
    return found
