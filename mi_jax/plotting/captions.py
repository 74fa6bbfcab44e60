"""The sentences that captions share: seeds, samples, noise, epochs and attacks, as the records state them."""

from mi_jax.plotting.style import FEW_SEEDS
from mi_jax.records.labels import LABEL_LEAK, attack_label, attack_labels
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Table

_LIMITS = {"sample size": "too few samples", "training": "training unfinished or overfitted"}
"""Words for values of the column `unreliable`."""


def seeds(rows: Table) -> str:
    """The number of seeds behind a figure and what its bands and points mean."""
    what = ["training", "inputs", "attack", "quantity", "estimator", "noise_rule", "layer", "epoch"]
    counts = rows.groupby(what, dropna=False)["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "1 seed: no interval can be given."
    number = f"{most}" if least == most else f"{least} to {most}"
    if most == 2:
        return (
            f"Mean over {number} seeds; bands and whiskers span the two values, shown as small points (the 95 % "
            "t-interval of 2 seeds reaches 12.7 standard errors to each side; the tables give it)."
        )
    points = "; small points: the seeds" if most < FEW_SEEDS else ""
    wide = "an interval much wider than the curves may be cut off"
    return f"Mean and 95 % t-interval over {number} seeds{points}; {wide}."


def limits(rows: Table) -> str:
    """How many estimates are beyond which limit, and so hollow, as a sentence; empty where none is."""
    reasons = rows["unreliable"].fillna(rows["saturated"].map({True: "saturated"})).value_counts()
    if reasons.empty:
        return ""
    parts = ", ".join(f"{_LIMITS.get(limit, limit)} {count}" for limit, count in reasons.items())
    return f"Hollow: {reasons.sum()} of {len(rows)} estimates are unreliable ({parts})."


def samples(rows: Table) -> str:
    """The number of samples measured."""
    n = rows["n"].dropna().unique()
    return f"n = {_range(n)} samples" if len(n) else "n not recorded"


def noise(rows: Table) -> str:
    """The noise variance, and what it depends on if it is not one number."""
    variances = rows["noise_variance"].dropna()
    if variances.empty:
        return "noise variance not recorded"
    if variances.nunique() == 1:
        return f"noise variance {variances.iloc[0]:g}"
    moves = rows.groupby(["training", "seed", "layer"])["noise_variance"].nunique().max() > 1
    differs = final_rows(rows).groupby(["seed", "layer"])["noise_variance"].nunique().max() > 1
    own = "different for each training" if differs else "the same for all trainings"
    when = ", recomputed at every epoch" if moves else ", constant through training"
    when = when if rows["epoch"].nunique() > 1 else ""  # one epoch does not tell
    return f"noise variance set for each layer, {variances.min():.3g} to {variances.max():.3g}, {own}{when}"


def attack(run_records: RunRecords, rows: Table) -> str:
    """The attacks behind the adversarial inputs of the rows as a sentence; empty where the rows have none.

    Where no row names its attack, it is that of the run's configuration.
    """
    adversarial = rows[rows["inputs"] == "adversarial"]
    if adversarial.empty:
        return ""
    return f"Adversarial inputs: {attack_labels(adversarial) or attack_label(configured_attack(run_records))}."


def configured_attack(run_records: RunRecords) -> dict[str, object]:
    """The attack of the run's configuration in the columns of the records; empty where there is none."""
    found = run_records.config.get("attack")
    if not isinstance(found, dict) or "steps" not in found:
        return {}
    return {"attack": "pgd", "attack_steps": found["steps"], **{k: found.get(k) for k in ("norm", "eps", "restarts")}}


def label_leak(rows: Table) -> str:
    """A warning for I(T;Y) on adversarial inputs; empty where the rows have none."""
    return LABEL_LEAK if (rows["inputs"] == "adversarial").any() else ""


def last_epoch(rows: Table) -> str:
    """The epoch of the finished networks."""
    return epoch_range(final_rows(rows))


def epoch_range(rows: Table) -> str:
    """The epoch of the rows, or the first and the last."""
    return f"epoch {_range(rows['epoch'].unique())}"


def epochs(rows: Table) -> str:
    """The number of measured epochs and their range."""
    values = sorted(rows["epoch"].dropna().unique())
    if len(values) == 1:
        return f"epoch {values[0]:g} measured"
    return f"{len(values)} epochs measured, {values[0]:g} to {values[-1]:g}"


def where(run_records: RunRecords) -> str:
    """Architecture and data set, if recorded."""
    parts = (run_records.architectures, run_records.datasets)
    return " on ".join(", ".join(part) for part in parts if part)


def cells(run_records: RunRecords) -> str:
    """That numbers are means over the cells of a sweep; empty for a run, and for a sweep of one cell."""
    count = run_records.records["cell"].nunique()
    return f", mean over the {count} cells of the sweep" if count > 1 else ""


def _range(values: object) -> str:
    numbers = sorted(float(value) for value in values)  # pyright: ignore[reportGeneralTypeIssues]
    return f"{numbers[0]:g}" if numbers[0] == numbers[-1] else f"{numbers[0]:g} to {numbers[-1]:g}"
