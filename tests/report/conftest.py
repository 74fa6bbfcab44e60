"""A made-up run: some trainings and seeds, curves that rise, saturate and fall, with known noise."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mi_jax import records
from mi_jax.records.table import Record
from mi_jax.report.figures import examples

STEPS, STRONG_STEPS = 7, 20
FINAL = {
    "nt": {None: 0.97, STEPS: 0.05, STRONG_STEPS: 0.02},
    "adversarial": {None: 0.9, STEPS: 0.72, STRONG_STEPS: 0.68},
}
"""Final accuracy by the steps of the attack; None: clean."""


def attack_columns(steps):
    if steps is None:
        return {"inputs": "clean"}
    return {"inputs": "adversarial", "attack": "pgd", "norm": "linf", "eps": 8 / 255, "attack_steps": steps}


def write_run(
    run_dir: Path,
    *,
    trainings: tuple[str, ...] = ("nt", "at"),
    seeds: int = 3,
    epochs: tuple[float, ...] = (0, 1, 2, 3, 4, 5, 6, 8, 10),
    layers: int = 8,
    n: int = 1000,
    with_examples: bool = True,
) -> Path:
    """Writes records, configuration, provenance and example images of a made-up run and returns its directory."""
    run_dir.mkdir(exist_ok=True)
    random = np.random.default_rng(0)
    rows = []
    for training in trainings:
        for seed in range(seeds):
            for epoch in epochs:
                where = {
                    "run": run_dir.name,
                    "arch": "vgg11",
                    "dataset": "shapetex",
                    "training": training,
                    "seed": seed,
                }
                where |= {"step": int(100 * epoch), "epoch": epoch}
                rows += _training_rows(random, where, last=epoch == epochs[-1])
                for layer in range(layers):
                    rows += _layer_rows(random, where, layer, layers, n)
    records.append(run_dir, rows)
    (run_dir / "config.json").write_text(
        json.dumps({"arch": "vgg11", "attack": {"eps": 8 / 255}, "note": "<b>bold</b>"})
    )
    (run_dir / "provenance.json").write_text(
        json.dumps({"git_commit": "0123456789abcdef", "end": "2024-01-01T00:00:00"})
    )
    if with_examples:
        _write_examples(random, run_dir, trainings)
    return run_dir


def _training_rows(random, where, *, last):
    rise = 1 - math.exp(-where["epoch"] / 2)
    rows = []
    for image_set, gap in (("train", 0.01), ("test", 0.0)):
        for steps, final in FINAL["nt" if where["training"] == "nt" else "adversarial"].items():
            strong = steps == STRONG_STEPS
            if strong and not (last and image_set == "test"):
                continue
            accuracy = 0.1 + (final - 0.1) * rise + gap + 0.01 * random.normal()
            shared = {**where, "image_set": image_set, "n": 1000, **attack_columns(steps)}
            shared["checkpoint"] = "last" if strong else "epoch"
            rows.append(Record(quantity="accuracy", value=float(np.clip(accuracy, 0, 1)), unit="1", **shared))
            loss = -2.3 * math.log(max(accuracy, 0.01)) / math.log(10) if steps is None else 2.5 - 2.0 * accuracy
            rows.append(Record(quantity="loss", value=loss + 0.02 * random.normal(), unit="nats", **shared))
    return rows


def _layer_rows(random, where, layer, layers, n):
    depth, progress = layer / (layers - 1), 1 - math.exp(-where["epoch"] / 3)
    robust = where["training"] != "nt"
    top, rows = math.log2(n), []
    for inputs in ("clean", "adversarial"):
        fooled = 0.5 * progress if inputs == "adversarial" and not robust else 0.05 if inputs == "adversarial" else 0.0
        for rule in ("fixed", "trace"):
            level = {
                "fixed": 1.35 - 0.8 * depth - (0.25 if robust else 0),
                "trace": 0.72 - 0.35 * depth - 0.02 * robust,
            }[rule]
            upper = (
                top * min(0.998, level * (0.55 + 0.45 * progress) * (1 - 0.1 * depth * progress))
                + 0.06 * random.normal()
            )
            upper = min(upper, top)
            labels = 3.32 * (0.2 + 0.75 * progress * (0.35 + 0.65 * depth)) * (1 - fooled) * (0.85 if robust else 1)
            labels += 0.04 * random.normal()
            shared = {
                **where,
                **attack_columns(STEPS if inputs == "adversarial" else None),
                "layer": f"conv{layer}" if layer < layers - 1 else "logits",
                "n": n,
            }
            shared |= {
                "checkpoint": "epoch",
                "image_set": "test",
                "noise_rule": rule,
                "unit": "bits",
                "saturated": upper > 0.95 * top,
                "estimator": "kde",
            }
            shared["noise_variance"] = 0.1 if rule == "fixed" else (1 + layer) * (0.5 if robust else 0.9)
            rows += [
                Record(quantity=quantity, value=value, **shared)
                for quantity, value in (
                    *(("i_tx_upper", upper), ("i_tx_lower", 0.75 * upper)),
                    *(("i_ty_upper", labels), ("i_ty_lower", 0.8 * labels)),
                    *(("i_ty_certified_upper", min(3.32, 1.3 * labels)), ("i_ty_certified_lower", 0.3 * labels)),
                )
            ]
            rows.append(Record(quantity="saturation", value=upper / top, **{**shared, "unit": "1"}))
            rows += [
                Record(quantity="i_tx_given_y_upper", value=0.6 * upper, **{**shared, "n": n // 10, "class_": k})
                for k in range(10)
                if inputs == "clean"
            ]
        shared |= {"noise_rule": None, "noise_variance": None, "estimator": "binning", "saturated": depth < 0.5}
        rows += [Record(quantity=q, value=v, **shared) for q, v in (("i_tx", top * (1 - 0.1 * depth)), ("i_ty", 3.32))]
    return rows


def _write_examples(random, run_dir, trainings):
    images = random.uniform(0.2, 0.8, size=(8, 32, 32, 3)).astype(np.float32)
    shapes = np.linspace(0, 1, 32)[None, :, None] * np.ones((32, 1, 3))
    images = np.clip(0.3 * images + 0.6 * shapes, 0, 1).astype(np.float32)
    noise = {t: 8 / 255 * np.sign(random.normal(size=images.shape)) for t in trainings}
    examples.save(
        run_dir,
        images=images,
        labels=np.arange(8),
        class_names=["disk", "square", "triangle", "plus", "ring", "star", "crescent", "heart", "hourglass", "U"],
        adversarial={t: np.clip(images + delta, 0, 1) for t, delta in noise.items()},
        predicted_clean={t: np.arange(8) for t in trainings},
        predicted_adversarial={t: (np.arange(8) + (3 if t == "nt" else 0)) % 10 for t in trainings},
        attack="PGD-7 Linf 8/255",
    )


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    return write_run


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run: two trainings, three seeds, three layers."""
    return write_run(tmp_path_factory.mktemp("runs") / "small", layers=3, epochs=(0, 1, 2, 4, 8))
