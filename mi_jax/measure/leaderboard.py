"""Published clean and AutoAttack accuracies on CIFAR-10 of models that `mi_jax.models.from_torch` reads.

From the `model_info` files of RobustBench (Croce et al. 2021; github.com/RobustBench/robustbench), which give
accuracies of all 10,000 test images in percent. Models whose weights were replaced there are left out.
"""

from typing import NamedTuple

from mi_jax.models import ARCHITECTURES


class Entry(NamedTuple):
    """One model of the leaderboard.

    Attributes:
        model: its name in RobustBench.
        arch: name in `mi_jax.models.ARCHITECTURES`.
        norm, eps: the threat model, `eps` in pixel units of [0, 1].
        clean, autoattack: accuracies, 0 to 1.
    """

    model: str
    arch: str
    norm: str
    eps: float
    clean: float
    autoattack: float


LEADERBOARD = tuple(
    Entry(model, arch, norm, {"linf": 8 / 255, "l2": 0.5}[norm], round(clean / 100, 4), round(autoattack / 100, 4))
    for model, arch, norm, clean, autoattack in (
        ("Addepalli2022Efficient_RN18", "resnet18", "linf", 85.71, 52.48),
        ("Addepalli2021Towards_RN18", "resnet18", "linf", 80.24, 51.06),
        ("Wu2020Adversarial_extra", "wrn-28-10", "linf", 88.25, 60.04),
        ("Carmon2019Unlabeled", "wrn-28-10", "linf", 89.69, 59.53),
        ("Wang2020Improving", "wrn-28-10", "linf", 87.50, 56.29),
        ("Hendrycks2019Using", "wrn-28-10", "linf", 87.11, 54.92),
        ("Standard", "wrn-28-10", "linf", 94.78, 0.0),
        ("Wu2020Adversarial", "wrn-34-10", "linf", 85.36, 56.17),
        ("Huang2020Self", "wrn-34-10", "linf", 83.48, 53.34),
        ("Zhang2019Theoretically", "wrn-34-10", "linf", 84.92, 53.08),
        ("Rice2020Overfitting", "preact-resnet18", "l2", 88.67, 67.68),
        ("Wu2020Adversarial", "wrn-34-10", "l2", 88.51, 73.66),
    )
)
"""By norm and architecture, the most robust first. Zhang2019Theoretically and Huang2020Self are listed there with
eps = 0.031, a little less than 8/255. Hendrycks2019Using needs `mean=0.5, std=0.5`, which its file does not hold."""


def entries(arch: str, dataset: str, norm: str, eps: float) -> tuple[Entry, ...]:
    """The entries of an architecture, data set and threat model.

    Args:
        arch: name in `mi_jax.models.ARCHITECTURES`, or an alias.
        dataset: name of the data set; only `cifar10` has entries.
        norm: `linf`, `l2` or `l1`.
        eps: radius in pixel units of [0, 1].

    Examples:
        >>> [entry.model for entry in entries("preact-resnet18", "cifar10", "l2", 0.5)]
        ['Rice2020Overfitting']
    """
    if dataset.partition(":")[0] != "cifar10":
        return ()
    name = ARCHITECTURES.resolve(arch)
    return tuple(e for e in LEADERBOARD if (e.arch, e.norm) == (name, norm) and abs(e.eps - eps) < 1e-6)
