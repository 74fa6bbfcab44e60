"""The prose of the report page: its title, the answers, what was run, the glossary and the settings."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from mi_jax.claims import Claim
from mi_jax.plotting import captions
from mi_jax.records.labels import LABEL_LEAK, NOISE_RULE_NAMES, attack_label, name_of
from mi_jax.records.run_records import RunRecords
from mi_jax.report.html_tables import badge

VERDICTS = (
    "Supported, contradicted (the opposite holds) and equivalent (no difference of interest) are at the 95 % level "
    "over seeds, and over images where a statistic allows it, else for the images of this run. Mixed: parts of the "
    "claim, or its verdicts under different noise rules, differ. Undecided: the intervals are too wide, the seeds or "
    "epochs too few, or a measurement is missing. Fragile: the verdict changes if an end of an interval moves by a "
    "tenth of its half-width or within the digits shown, so a run on another processor may give a different one."
)
_DATASETS = {"shapetex": "ShapeTex", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "mnist": "MNIST"}
_DATASETS |= {"fashion_mnist": "Fashion-MNIST", "svhn_cropped": "SVHN", "digits": "the digits of scikit-learn"}
_TRAINED = {"nt": "normally", "at": "adversarially"}
_TRAINED |= {"at-linf": "adversarially (Linf)", "at-l2": "adversarially (L2)"}
_SNAPSHOTS = ("untrained", "matched-linf", "matched-l2")
"""Networks of a sweep on the way of its normal training."""
GLOSSARY = {
    "NT": "normal training, on clean images.",
    "AT": "adversarial training, on images that an attack has changed within a small radius to raise the loss.",
    "T": "the output of one layer, a random variable because the input image X and its label Y are drawn from the "
    "data.",
    "I(X;T)": "the information, in bits, that a layer carries about which image was shown. As a network is "
    "deterministic, it is measured with Gaussian noise added to T. It cannot exceed log₂ N for N images.",
    "I(T;Y)": "the information, in bits, that a layer carries about the label; at most the entropy H(Y) of the labels.",
    "Label leak": LABEL_LEAK + " Attacks on the network's own prediction or towards a random class do not know y.",
    "KDE": "kernel density estimate: bounds of the information under the noise from the pairwise distances of the "
    "layer's outputs (Kolchinsky & Tracey 2017).",
    "Noise rule": "how the variance of that noise is chosen. Fixed: one number for every layer. Trace: in proportion "
    "to the variance of the layer before training. Scale-free: in proportion to the variance of the measured outputs, "
    "so that a mere change of scale has no effect.",
    "Saturation": "an estimate near log₂ N only shows that the noise is too small to confuse any two images: it counts "
    "samples and does not compare networks.",
    "Hollow points": "estimates that are unreliable: saturated, or of too few samples for the information of the "
    "population (the leave-one-out estimate is then much larger).",
    "ShapeTex": "synthetic images of ten classes, in which shape and texture both indicate the class and can be "
    "exchanged independently.",
    "Shape bias": "of the predictions for the class of either cue on images whose shape and texture are of different "
    "classes, the share for the class of the shape (Geirhos et al. 2019).",
    "PGD, AutoAttack": "attacks: projected gradient descent with the given number of steps, and a parameter-free "
    "ensemble of attacks (Croce & Hein 2020). Linf 8/255 is the largest change of any pixel.",
    "95 % interval": "the range of values compatible with the seeds (Student's t), the images (Wilson), or both "
    "together, with their variances added (in claims, the interval over images comes from blocks of images that all "
    "networks share).",
}


def title(run_records: RunRecords) -> str:
    """What was studied: architectures, trainings and data set."""
    trainings = [training for training in run_records.trainings if training not in _SNAPSHOTS]
    trained = _listed(_TRAINED.get(training, f"with {name_of(training)}") for training in trainings)
    dataset = _listed(_DATASETS.get(name, name) for name in _texts(run_records, "dataset"))
    networks = " ".join([*filter(None, [_listed(_texts(run_records, "arch"))]), "networks"])
    where = f" on {dataset}" if dataset else ""
    return f"Information and robustness of {networks}" + (f" trained {trained}{where}" if trained else where)


def subtitle(run_records: RunRecords) -> str:
    """The run directory and commit; and that the run is unfinished, where its provenance says so."""
    commit = run_records.provenance.get("git_commit")
    text = f"Run {run_records.run_dir.resolve().name}" + (f", commit {str(commit)[:10]}." if commit else ".")
    if "end" in run_records.provenance and run_records.provenance["end"] is None:
        text += " This run has not finished: the report shows what has been measured so far."
    return text


def answers(run_records: RunRecords, found: Sequence[Claim]) -> str:
    """One sentence per claim with its combined verdict and what that depends on."""
    rules = run_records.noise_rules
    items = []
    for claim in found:
        verdict = badge(claim.combined(rules), fragile=claim.combined_is_fragile(rules))
        depends = "; ".join(filter(None, [verdicts_in_words(claim, rules), claim.scope, claim.of_images_alone(rules)]))
        items.append(
            f"<li>{escape(claim.text.removesuffix('.'))}: {verdict}{f' ({escape(depends)})' if depends else ''}.</li>"
        )
    return f'<ul class="answers">{"".join(items)}</ul><p class="small">{escape(VERDICTS)}</p>'


def verdicts_in_words(claim: Claim, rules: Sequence[str]) -> str:
    """Under which noise rules a claim has which verdict; empty for a claim that needs none.

    Args:
        claim: the claim.
        rules: the noise rules of the run.
    """
    if not claim.needs_noise:
        return ""
    testable = claim.testable(rules)
    by_verdict: dict[str, list[str]] = {}
    for rule in rules:
        word = claim.verdict(rule) if rule in testable else "cannot be tested"
        by_verdict.setdefault(word, []).append(NOISE_RULE_NAMES[rule].removesuffix(" noise rule"))
    if len(by_verdict) == 1:
        return "under every noise rule" if testable else "cannot be tested under any noise rule"
    parts = [
        f"{word} under the {_listed(names)} noise rule{'s' * (len(names) > 1)}" for word, names in by_verdict.items()
    ]
    return ", ".join(parts)


def facts(run_records: RunRecords) -> dict[str, str]:
    """Architecture, width, images, epochs, seeds and attacks of a run, as far as they are known."""
    config, rows = run_records.config, run_records.records
    width = config.get("width")
    training_images = run_records.select(quantity="loss", image_set="train")["n"]
    measured = run_records.select(
        quantity="i_tx_upper", estimator="kde", image_set="test", distortion=None, reference=None
    )["n"]
    finished = set(rows["checkpoint"].dropna()) & {"best", "last"}
    found = {
        "Network": _listed(_texts(run_records, "arch")) + (f", width factor {width:g}" if _is_number(width) else ""),
        "Data set": _listed([_DATASETS.get(name, name) for name in _texts(run_records, "dataset")]),
        "Training images": f"{int(training_images.max())} per epoch" if training_images.notna().any() else "",
        "Trainings": _listed([name_of(training) for training in run_records.trainings]),
        "Seeds": str(rows["seed"].nunique() or ""),
        "Epochs": f"{rows['epoch'].max():g}" if rows["epoch"].notna().any() else "",
        **_attacks(run_records),
        "Images for information": f"{int(measured.max())}" if measured.notna().any() else "",
        "Final networks": "best on held-out images" if "best" in finished else "last epoch" if finished else "",
    }
    return {name: fact for name, fact in found.items() if fact}


def _attacks(run_records: RunRecords) -> dict[str, str]:
    """The attack in training, where one is adversarial, and that for measurements, where it is not the same."""
    attack = captions.configured_attack(run_records)
    if not attack:
        return {}
    seen = run_records.select(quantity="loss", image_set="train", inputs="adversarial")["training"].dropna().unique()
    labels = [attack_label(attack | ({"attack_steps": 1} if training == "fast" else {})) for training in seen]
    in_training, measured = ", ".join(dict.fromkeys(labels)), attack_label(attack)
    return {"Attack in training": in_training, "Attack for measurements": "" if measured == in_training else measured}


def what_was_run(run_records: RunRecords) -> str:
    """The facts of a run as HTML; and that a quick run is small."""
    found = facts(run_records)
    items = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(fact)}</dd></div>" for name, fact in found.items())
    small = (
        "<p><b>This is a quick run: a small network, few images and few epochs.</b> It shows how the measurements "
        "behave; its accuracies are not comparable with published ones.</p>"
    )
    return (small if run_records.config.get("preset") == "quick" else "") + (
        f'<dl class="facts">{items}</dl>' if items else ""
    )


def glossary() -> str:
    """The terms of the page."""
    terms = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>" for term, text in GLOSSARY.items())
    return f'<dl class="glossary">{terms}</dl>'


def settings(run_records: RunRecords) -> str:
    """`config.json` and `provenance.json` as folded, escaped blocks; nothing for a missing file."""
    blocks = []
    for name, content in (("Configuration", run_records.config), ("Provenance", run_records.provenance)):
        if content:
            text = escape(json.dumps(content, indent=2, ensure_ascii=False))
            blocks.append(f"<details><summary>{name}</summary><pre>{text}</pre></details>")
    return "".join(blocks)


def contents(sections: Mapping[str, str]) -> str:
    """The table of contents: links to the sections, whose titles are given by their id."""
    links = "".join(f'<li><a href="#{escape(name)}">{escape(text)}</a></li>' for name, text in sections.items())
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def _texts(run_records: RunRecords, column: str) -> list[str]:
    return list(run_records.records[column].dropna().unique())


def _listed(parts: Iterable[str]) -> str:
    """Words joined by commas and "and"."""
    *first, last = list(parts) or [""]
    return f"{', '.join(first)} and {last}" if first else last


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
