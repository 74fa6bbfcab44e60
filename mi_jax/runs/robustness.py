"""Clean and AutoAttack accuracy of networks of any origin: finished networks of a run, and PyTorch checkpoints."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from mi_jax import attacks
from mi_jax.attacks import AutoAttackResult, Budget, Progress
from mi_jax.attacks.threat_model import DEFAULT_EPS, check_norm
from mi_jax.data import Dataset
from mi_jax.data.sample import fixed_sample
from mi_jax.errors import InputError
from mi_jax.measure.autoattack import budget_in_words, stages
from mi_jax.measure.leaderboard import entries
from mi_jax.models import Network
from mi_jax.parallel import Mesh
from mi_jax.records.labels import name_of, radius_label
from mi_jax.runs.restore import read_config, restore_finished
from mi_jax.statistics.intervals import wilson
from mi_jax.text_table import TextTable
from mi_jax.typing import Variables


class Candidate(NamedTuple):
    """A network to evaluate, with the name under which its result is shown."""

    name: str
    network: Network
    variables: Variables


class Protocol(NamedTuple):
    """How networks are evaluated.

    Attributes:
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1].
        version: `standard`, `plus`, or names of attacks, separated by commas.
        budget: steps, queries, targets and restarts.
        samples: test images; all where there are no more.
        batch_size, mesh: as for `mi_jax.attacks.autoattack`.
        seed: seed of the random numbers.
    """

    norm: str = "linf"
    eps: float = 8 / 255
    version: str = "standard"
    budget: Budget = Budget()
    samples: int = 10_000
    batch_size: int | None = None
    mesh: Mesh | None = None
    seed: int = 0

    @classmethod
    def of(cls, norm: str, eps: float | None, **options) -> "Protocol":
        """A protocol whose radius is the usual one of the norm where none is given."""
        norm = check_norm(norm)
        return cls(norm=norm, eps=DEFAULT_EPS[norm] if eps is None else eps, **options)


def finished_networks(
    run_dir: Path, *, trainings: Sequence[str] = (), seeds: Sequence[int] = ()
) -> Iterator[Candidate]:
    """The finished networks of a run: the best on held-out images where there are any, else the last.

    Args:
        run_dir: the run directory.
        trainings, seeds: which; all by default.

    Raises:
        InputError: when the directory is not a run's, holds no such network, or its training is not finished.
    """
    config = read_config(run_dir)
    for training in trainings or config.trainings:
        for seed in seeds or range(config.seeds):
            found = restore_finished(run_dir, training=training, seed=seed)
            yield Candidate(f"{name_of(training)} seed {seed}", found.network, found.variables)


def evaluate(
    candidate: Candidate,
    dataset: Dataset,
    protocol: Protocol,
    *,
    progress: Callable[[Progress], None] | None = None,
    state_path: Path | None = None,
) -> AutoAttackResult:
    """Clean and AutoAttack accuracy on test images.

    Raises:
        InputError: for a network of other images or classes than the data set's, and as `mi_jax.attacks.autoattack`.
    """
    name, network, variables = candidate
    shape = dataset.test.images.shape[1:]
    if (tuple(network.input_shape), network.num_classes) != (tuple(shape), dataset.num_classes):
        raise InputError(
            f"{name} takes images of {'x'.join(map(str, network.input_shape))} and has {network.num_classes} classes; "
            f"{dataset.name} has images of {'x'.join(map(str, shape))} and {dataset.num_classes} classes."
        )
    images, labels = fixed_sample(dataset.test.images, dataset.test.labels, protocol.samples)
    return attacks.autoattack(
        network.logits, variables, images, labels, protocol.seed, norm=protocol.norm, eps=protocol.eps,
        version=stages(protocol.version), budget=protocol.budget, batch_size=protocol.batch_size, mesh=protocol.mesh,
        progress=progress, state_path=state_path,
    )  # fmt: skip


def as_table(results: Sequence[tuple[Candidate, AutoAttackResult]], dataset: Dataset, protocol: Protocol) -> TextTable:
    """Clean accuracy, accuracy after each attack with a 95 % interval, and the leaderboard's numbers below."""
    changed = budget_in_words(protocol.version, protocol.budget, protocol.norm)
    radius = radius_label(protocol.norm, protocol.eps)
    title = f"AutoAttack, {protocol.norm.capitalize()} {radius}, {len(results[0][1].success)} test images"
    names = [stage.name for stage in results[0][1].stages]
    rows = []
    for candidate, result in results:
        robust = [stage.robust_accuracy for stage in result.stages]
        low, high = wilson(result.robust_accuracy, len(result.success))
        cells = [f"{value:.2%}" for value in (result.clean_accuracy, *robust[:-1])]
        rows.append([candidate.name, *cells, f"{result.robust_accuracy:.2%} [{low:.1%}, {high:.1%}]"])
    for arch in dict.fromkeys(candidate.network.arch for candidate, _ in results):
        for entry in entries(arch, dataset.name, protocol.norm, protocol.eps):
            cells = [f"{entry.clean:.2%}", *("" for _ in names[:-1]), f"{entry.autoattack:.2%}"]
            rows.append([f"RobustBench: {entry.model}", *cells])
    heads = ["network", "clean", *(f"after {name}" for name in names[:-1]), "robust"]
    return TextTable(title + (f" ({changed})" if changed else ""), heads, rows, show_lines=False)
