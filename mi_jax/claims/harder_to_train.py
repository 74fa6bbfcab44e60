"""Claim 2b: adversarial training is harder than normal training."""

import math

import numpy as np

from mi_jax.claims.paired import (
    END,
    OVER_BOTH,
    Pair,
    difference_of_shares,
    earlier_epoch,
    final_difference,
    missing,
    scope,
)
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, context, difference, statistic
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords, final_rows
from mi_jax.statistics.intervals import Table, t_interval

_SHARE = 0.9


@CLAIMS.registering("harder_to_train")
def harder_to_train(run_records: RunRecords, pair: Pair) -> Claim:
    """Clean accuracy and clean loss on test images, the second training minus the first; speed as context."""
    first, second = map(name_of, pair)
    tested, losses = (_on_test(run_records, quantity) for quantity in ("accuracy", "loss"))
    accuracy, of_accuracy = difference_of_shares(tested, pair)
    loss, of_loss = final_difference(losses, pair)
    statistics = [
        statistic(
            "Clean test accuracy", accuracy, "points", difference(sign=-1, smallest=SMALLEST["accuracy"]),
            missing(accuracy, "clean test accuracy") or _of_rows(run_records, tested, pair), over_images=of_accuracy,
        ),
        statistic(
            "Clean test loss", loss, "nats", difference(sign=+1, smallest=SMALLEST["nats"]),
            missing(loss, "clean test loss") or _of_rows(run_records, losses, pair), over_images=of_loss,
        ),
    ]  # fmt: skip
    trained_on = run_records.select(quantity="loss", training=pair, image_set="train")
    delay = t_interval(_delays(trained_on, pair))
    if delay.count:
        remark = "context: depends on the learning rates and on the warm-up of the attack"
        name = f"Epochs until {100 * _SHARE:.0f} % of the fall of its own training loss"
        statistics.append(statistic(name, delay, "epochs", context, remark, decides=False))
    return Claim(
        number="2b",
        name=f"{second} is harder to train",
        text=f"{second} is harder than {first}: its networks have lower clean accuracy and a higher clean loss.",
        method=f"{second} minus {first} {END}: accuracy and cross-entropy on the same clean test images; {OVER_BOTH}; "
        "where blocks of images give no error for the accuracy, that of Newcombe's interval is combined with the one "
        "over seeds. The training losses themselves are not compared: each training has its own, and one on "
        "adversarial images is larger by construction. Shown as context: how many more epochs each training needs for "
        f"{100 * _SHARE:.0f} % of the fall of its own loss. An interval within ±{100 * SMALLEST['accuracy']:.0f} point "
        f"or ±{SMALLEST['nats']} nats counts as no difference.",
        statistics=tuple(statistics),
        figures=("training_curves", "robustness"),
        scope=scope(run_records, tested),
    )


def _on_test(run_records: RunRecords, quantity: str) -> Table:
    """Rows of clean test images: of the fixed sample, which all epochs share, where it was measured."""
    rows = run_records.select(
        quantity=quantity, image_set="test", inputs="clean", class_=None, distortion=None, source=None
    )
    sampled = rows[rows["checkpoint"] == "epoch"]
    return sampled if sampled["training"].nunique() == rows["training"].nunique() else rows


def _of_rows(run_records: RunRecords, rows: Table, pair: Pair) -> str:
    """The number of images, which may be another one than of the accuracies of the run; and the epoch, if earlier."""
    images = final_rows(rows[rows["training"].isin(pair)])["n"].dropna()
    of_images = f"{int(images.max()):,} images" if len(images) else ""
    return "; ".join(filter(None, [of_images, earlier_epoch(run_records, rows, pair)]))


def _delays(rows: Table, pair: Pair) -> list[float]:
    """Epochs to `_SHARE` of the fall from the first epoch's loss to the lowest one, second minus first, by seed."""
    reached = {
        key: _epochs_to_share(curve.sort_values("epoch"))
        for key, curve in rows.dropna(subset=["epoch"]).groupby(["training", "seed"])
    }
    seeds = [seed for training, seed in reached if training == pair[0] and (pair[1], seed) in reached]
    return [reached[pair[1], seed] - reached[pair[0], seed] for seed in seeds]


def _epochs_to_share(curve: Table) -> float:
    epochs, losses = curve["epoch"].to_numpy(float), curve["value"].to_numpy(float)
    if len(losses) < 3 or losses[-1] >= losses[0]:
        return math.nan
    done = (losses[0] - np.minimum.accumulate(losses)) / (losses[0] - losses.min())
    return float(np.interp(_SHARE, done, epochs))
