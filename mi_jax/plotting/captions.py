"""The sentences that captions share: seeds, samples, noise, epochs, as the records state them.

It formats; it draws and computes nothing else.
"""

from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Table


def seeds(rows: Table) -> str:
    """How many seeds stand behind a figure and what its bands mean."""
    what = ["training", "inputs", "quantity", "estimator", "noise_rule", "layer"]
    counts = rows.groupby(what, dropna=False)["seed"].nunique()
    least, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "1 seed: no interval can be given."
    number = f"{most}" if least == most else f"{least} to {most}"
    if most == 2:
        return (
            f"Mean over {number} seeds; bands and whiskers reach from one seed to the other (a 95 % t-interval of 2 "
            "seeds is 12.7 standard errors to each side: the tables give it)."
        )
    return f"Mean and 95 % t-interval over {number} seeds; an interval much wider than the curves may leave the panel."


def samples(rows: Table) -> str:
    """How many samples were measured."""
    n = rows["n"].dropna().unique()
    return f"n = {_range(n)} samples" if len(n) else "n not recorded"


def noise(rows: Table) -> str:
    """The noise variance, and over what it changes if it is not one number."""
    variances = rows["noise_variance"].dropna()
    if variances.empty:
        return "noise variance not recorded"
    if variances.nunique() == 1:
        return f"noise variance {variances.iloc[0]:g}"
    moves = rows.groupby(["training", "seed", "layer"])["noise_variance"].nunique().max() > 1
    differs = final_rows(rows).groupby(["seed", "layer"])["noise_variance"].nunique().max() > 1
    own = "each training's own" if differs else "shared by the trainings"
    when = "following the activations through training" if moves else "held through training"
    return f"noise variance set by layer, {variances.min():.3g} to {variances.max():.3g}, {own}, {when}"


def last_epoch(evidence_rows: Table) -> str:
    """The epoch that stands for the end of training."""
    return f"epoch {_range(final_rows(evidence_rows)['epoch'].unique())}"


def epochs(rows: Table) -> str:
    """The epochs measured."""
    values = sorted(rows["epoch"].dropna().unique())
    return f"{len(values)} epochs measured, {values[0]:g} to {values[-1]:g}"


def where(run_records: RunRecords) -> str:
    """Network and data set, if recorded."""
    parts = [run_records.records[column].dropna().unique() for column in ("arch", "dataset")]
    return " on ".join(", ".join(part) for part in parts if len(part))


def _range(values: object) -> str:
    numbers = sorted(float(value) for value in values)  # pyright: ignore[reportGeneralTypeIssues]
    return f"{numbers[0]:g}" if numbers[0] == numbers[-1] else f"{numbers[0]:g} to {numbers[-1]:g}"
