"""Claim 2b: adversarial training is harder than normal training."""

from mi_jax.claims.paired import END, Pair, difference_of_shares, final_difference, missing
from mi_jax.claims.registry import CLAIMS
from mi_jax.claims.verdicts import SMALLEST, Claim, judge_difference, statistic
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords, accuracy_on_test


@CLAIMS.registering("harder_to_train")
def harder_to_train(run_records: RunRecords, pair: Pair) -> Claim:
    """Clean test accuracy and training loss, the second training minus the first."""
    first, second = map(name_of, pair)
    tested = accuracy_on_test(run_records)
    accuracy = difference_of_shares(tested[tested["attack_label"] == "clean"], pair)
    trained_on = run_records.select(quantity="loss", training=pair, image_set="train")
    loss = final_difference(trained_on, pair)
    inputs = trained_on.drop_duplicates("training").set_index("training")["inputs"]
    of_each = ", ".join(f"{name_of(training)}: {inputs[training]}" for training in pair[::-1] if training in inputs)
    lower = judge_difference(accuracy, sign=-1, smallest=SMALLEST["accuracy"])
    higher = judge_difference(loss, sign=+1, smallest=SMALLEST["nats"])
    return Claim(
        number="2b",
        name=f"{second} is harder to train",
        text=f"Adversarial training is harder: {second} networks have lower clean accuracy and a higher training loss.",
        method=f"{second} minus {first} {END}: accuracy on clean test images, and cross-entropy on the training "
        f"inputs of each{f' ({of_each})' if of_each else ''}; paired t-intervals over seeds, for the accuracy no "
        "narrower than Newcombe's interval over the test images, which all seeds share. Differences within "
        f"±{100 * SMALLEST['accuracy']:.0f} point and ±{SMALLEST['nats']} nats count as none.",
        statistics=(
            statistic("Clean test accuracy", accuracy, "points", lower, missing(accuracy, "clean test accuracy")),
            statistic("Training loss", loss, "nats", higher, missing(loss, "training loss")),
        ),
        figures=("training_curves", "robustness"),
    )
