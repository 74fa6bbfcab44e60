"""The units after training: judging, showing and studying the finished networks."""

import jax
import jax.numpy as jnp
import numpy as np

from mi_jax import studies
from mi_jax.experiment.setup import Setup
from mi_jax.progress import Status
from mi_jax.report import examples
from mi_jax.storage import records
from mi_jax.storage.run_dir import write_arrays
from mi_jax.studies.robustness import adversarial_twins, describe, robustness
from mi_jax.studies.sample import fixed_sample
from mi_jax.training import predictions

_EXAMPLES = 8


def judge(setup: Setup, training: str, seed: int) -> None:
    """Records the accuracy of a finished network under the strong attack."""
    records.truncate(setup.directory.path, setup.directory.records_bytes)
    setup.reporter.update(Status(f"{training} seed {seed}: strong attack", setup.done()))
    trainer, variables, step = setup.finished(training, seed)
    images, labels = fixed_sample(setup.dataset.test.images, setup.dataset.test.labels, setup.config.evaluation.samples)
    key = jax.random.fold_in(jax.random.key(seed), 1)
    rows = robustness(setup.network, variables, images, labels, key, attack=setup.config.final_attack)
    setup.append(trainer, step, rows, seed=seed)


def study(setup: Setup, chosen: studies.Study, samples: int) -> None:
    """Runs a study on the final network of every training and seed."""
    arrays: dict[str, np.ndarray] = {}
    for training in setup.config.trainings:
        for seed in range(setup.config.seeds):
            setup.reporter.update(Status(f"{chosen.name}: {training} seed {seed}", setup.done()))
            trainer, variables, step = setup.finished(training, seed)
            subject = studies.Subject(
                network=setup.network,
                variables=variables,
                dataset=setup.dataset,
                attack=setup.config.attack,
                samples=samples,
                key=jax.random.fold_in(jax.random.key(seed), 2),
            )
            found = chosen.run(subject)
            setup.append(trainer, step, found.records, seed=seed)
            arrays |= {f"{name}.{training}.{seed}": value for name, value in found.arrays.items()}
    if arrays:
        write_arrays(setup.directory.path / f"{chosen.name}.npz", arrays)


def show(setup: Setup) -> None:
    """A few test images, their twins for every training of the first seed, and what the networks say."""
    images, labels = (part[:_EXAMPLES] for part in setup.sample)
    adversarial, predicted_clean, predicted_adversarial = {}, {}, {}
    for training in setup.config.trainings:
        _, variables, _ = setup.finished(training, 0)
        twins = adversarial_twins(setup.network, variables, images, labels, attack=setup.config.attack)
        adversarial[training] = twins
        predicted_clean[training] = jnp.argmax(predictions(setup.network, variables, images), -1)
        predicted_adversarial[training] = jnp.argmax(predictions(setup.network, variables, twins), -1)
    examples.save(
        setup.directory.path,
        images=images,
        labels=labels,
        class_names=setup.dataset.class_names,
        adversarial=adversarial,
        predicted_clean=predicted_clean,
        predicted_adversarial=predicted_adversarial,
        attack=describe(setup.config.attack),
    )
