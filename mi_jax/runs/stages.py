"""The names of the stages that train, by which `progress.json` knows them."""

from collections.abc import Iterable


def join_seeds(seeds: tuple[int, ...]) -> str:
    """Seeds in words, such as `0,1`."""
    return ",".join(map(str, seeds))


def training_stage(training: str, seeds: tuple[int, ...]) -> str:
    """The name of the stage that trains these seeds."""
    return f"train/{training}/{join_seeds(seeds)}"


def is_trained(completed: Iterable[str], training: str, seed: int) -> bool:
    """Whether one of the completed stages is the training of this seed, alone or with others.

    Examples:
        >>> is_trained(["train/nt/0,11", "train/at/0"], "nt", 11), is_trained(["train/nt/0,11"], "nt", 1)
        (True, False)
    """
    trained = (stage.split("/") for stage in completed if stage.startswith("train/"))
    return any(name == training and str(seed) in seeds.split(",") for _, name, seeds in trained)
