"""`mi-jax evaluate`: clean and AutoAttack accuracy of a PyTorch checkpoint, or of the networks of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from mi_jax import data, models, parallel
from mi_jax.attacks import Budget, Progress
from mi_jax.attacks.threat_model import Norm
from mi_jax.cli import flags
from mi_jax.cli.session import session
from mi_jax.errors import InputError
from mi_jax.runs import robustness
from mi_jax.runs.progress import Reporter, Status, duration
from mi_jax.runs.restore import read_config
from mi_jax.runs.signals import StopSignals
from mi_jax.training import Interrupted


@dataclass(frozen=True)
class EvaluateCommand:
    """Measures clean and AutoAttack accuracy of a PyTorch checkpoint, or of the finished networks of a run.

    Attributes:
        run_dir: a directory made by `mi-jax run`; its data set, norm and radius are the defaults.
        torch_checkpoint: a file written by `torch.save` with a state dict, instead of a run.
        arch: architecture of the checkpoint: resnet18, resnet34, preact-resnet18, wrn-28-10, wrn-34-10 or a vgg.
        width: multiplier of every layer's width in the checkpoint.
        mean: subtracted from the images, one number or one per channel; by default what the checkpoint holds, else 0.
        std: divides the centred images; by default what the checkpoint holds, else 1.
        training: which training of the run; all by default.
        seed: which seed of the run; all by default.
        dataset: the data set whose test images are attacked; by default that of the run, else cifar10.
        data_dir: where TFDS data sets are; by default, where TFDS stores them.
        norm: norm of the threat model; by default that of the run, else linf.
        eps: radius in pixel units of [0, 1]; by default that of the run, else 8/255 in linf, 0.5 in l2, 12 in l1.
        version: standard, plus, or names of attacks, separated by commas.
        budget: steps, queries, targets and restarts.
        samples: number of test images.
        batch_size: images per batch, a power of two.
        mesh: devices that share each batch: auto, none, or data=N.
        state: file to which the evaluation is saved as it runs; the same command resumes from it.
    """

    run_dir: Annotated[Path | None, tyro.conf.Positional] = None
    torch_checkpoint: Path | None = None
    arch: str | None = None
    width: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    training: str | None = None
    seed: int | None = None
    dataset: str | None = None
    data_dir: str | None = None
    norm: Norm | None = None
    eps: float | None = None
    version: str = "standard"
    budget: Budget = Budget()
    samples: int = 10_000
    batch_size: int | None = None
    mesh: str = "auto"
    state: Path | None = None


def main(arguments: Sequence[str], *, program: str) -> None:
    """Parses the flags, evaluates each network, and prints a table."""
    command = flags.parse(EvaluateCommand, arguments, program=program)
    resumption = "the same command resumes" if command.state else "give --state FILE to resume next time"
    with session(EvaluateCommand, when_stopped=f"Stopped; {resumption}.") as (reporter, stop):
        if (command.run_dir is None) == (command.torch_checkpoint is None):
            raise InputError("Expected either a run directory or --torch-checkpoint, a file written by torch.save.")
        _refuse_options_of_the_other(command)
        config = None if command.run_dir is None else read_config(command.run_dir)
        name = command.dataset or (config.dataset if config else "cifar10")
        dataset = data.load(name, data_dir=command.data_dir)
        norm = command.norm or (str(config.attack.norm) if config else "linf")
        own = config is not None and norm == config.attack.norm and command.eps is None
        protocol = robustness.Protocol.of(
            norm, config.attack.eps if own and config else command.eps, version=command.version, budget=command.budget,
            samples=command.samples, batch_size=command.batch_size, mesh=parallel.make_mesh(command.mesh),
        )  # fmt: skip
        results = []
        for candidate in _candidates(command, dataset):
            result = robustness.evaluate(
                candidate, dataset, protocol, progress=_progress(reporter, stop, candidate.name),
                state_path=_state_file(command, candidate.name),
            )  # fmt: skip
            results.append((candidate, result))
            for warning in result.warnings:
                reporter.say(f"{candidate.name}: {warning}")
        reporter.show(robustness.as_table(results, dataset, protocol))


def _refuse_options_of_the_other(command: EvaluateCommand) -> None:
    """Raises `InputError` for options of a checkpoint where a run is evaluated, and the other way round."""
    of_checkpoint, of_run = ("arch", "width", "mean", "std"), ("training", "seed")
    other, kind = (of_run, "a run") if command.run_dir is None else (of_checkpoint, "--torch-checkpoint")
    usual = EvaluateCommand()
    if given := [f"--{name}" for name in other if getattr(command, name) != getattr(usual, name)]:
        raise InputError(f"{', '.join(given)} cannot be used without {kind}; leave it out.")


def _candidates(command: EvaluateCommand, dataset: data.Dataset) -> list[robustness.Candidate]:
    if command.run_dir is not None:
        trainings = () if command.training is None else (command.training,)
        seeds = () if command.seed is None else (command.seed,)
        return list(robustness.finished_networks(command.run_dir, trainings=trainings, seeds=seeds))
    assert command.torch_checkpoint is not None
    if command.arch is None:
        raise InputError("--torch-checkpoint needs --arch, such as wrn-28-10.")
    network, variables = models.from_torch(
        models.read_torch_checkpoint(command.torch_checkpoint), arch=command.arch, width=command.width,
        input_shape=dataset.test.images.shape[1:], mean=command.mean or None, std=command.std or None,
    )  # fmt: skip
    return [robustness.Candidate(command.torch_checkpoint.name, network, variables)]


def _state_file(command: EvaluateCommand, name: str) -> Path | None:
    if command.state is None or command.run_dir is None:
        return command.state
    if not command.state.name:
        raise InputError(f"--state is {str(command.state)!r}; expected the path of a file, such as evaluation.npz.")
    return command.state.with_stem(f"{command.state.stem}-{name.replace(' ', '-')}")


def _progress(reporter: Reporter, stop: StopSignals, name: str):
    def report(progress: Progress) -> None:
        done = (progress.stage_index + progress.fraction) / progress.stage_count
        left = f"{progress.stage} {progress.fraction:.0%}, about {duration(progress.seconds_left)} left in total"
        reporter.update(Status(f"{name}: {left}", done, robust_accuracy=progress.robust_accuracy))
        if stop():
            raise Interrupted

    return report
