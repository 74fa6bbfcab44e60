"""Runs of the earlier format, which named the part of the data in `subset` and the attack in `note`, are still read."""

import json

import numpy as np
import pytest

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.records.run_records import accuracy_on_test, read

OLD = (
    *("run", "arch", "dataset", "training", "seed", "step", "epoch", "inputs", "layer", "estimator", "quantity"),
    *("value", "stderr", "unit", "n", "noise_variance", "saturated", "ok", "note", "noise_rule", "subset", "level"),
)


def old_row(**columns):
    row = {
        "run": "r",
        "training": "nt",
        "seed": 0,
        "step": 92,
        "epoch": 2.0,
        "inputs": "clean",
        "value": 0.5,
        "ok": True,
    }
    return dict.fromkeys(OLD) | row | columns


def write(run_dir, *rows):
    (run_dir / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


PGD_20 = {"attack": "pgd", "norm": "linf", "eps": 8 / 255, "attack_steps": 20, "restarts": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"quantity": "accuracy", "subset": "test"}, {"image_set": "test", "checkpoint": "epoch"}),
        ({"quantity": "loss", "subset": "train", "note": "mean over the epoch's updates"}, {"image_set": "train"}),
        ({"quantity": "accuracy", "subset": "test", "note": "final"}, {"checkpoint": "last", "note": None}),
        (
            {"quantity": "accuracy", "subset": "test", "note": "final pgd-20 linf eps=8/255", "inputs": "adversarial"},
            {**PGD_20, "checkpoint": "last", "note": None},
        ),
        (
            {"quantity": "accuracy", "subset": "test", "note": "pgd-3x5 l2 eps=0.5", "inputs": "adversarial"},
            {"attack": "pgd", "norm": "l2", "eps": 0.5, "attack_steps": 3, "restarts": 5, "checkpoint": "epoch"},
        ),
        (
            {"quantity": "accuracy", "note": "final reduced-autoattack-plus linf eps=8/255 (fab 200 steps, 3 targets)"},
            {"attack": "autoattack-plus", "reduced": True, "eps": 8 / 255, "note": "fab 200 steps, 3 targets"},
        ),
        (
            {"quantity": "accuracy", "note": "final reduced-autoattack linf eps=8/255 (apgd-ce 5 steps)"},
            {"attack": "autoattack-custom", "reduced": True, "checkpoint": "last"},
        ),
        (
            {"quantity": "transfer_accuracy", "subset": "source=at", "note": "made on at"},
            {"source": "at", "image_set": "test", "checkpoint": "last", "note": None},
        ),
        ({"quantity": "i_tx_given_y_upper", "subset": "class=7"}, {"class": 7, "image_set": "test"}),
        ({"quantity": "i_tx_upper", "layer": "conv1"}, {"image_set": "test", "class": None}),
        (
            {"quantity": "shape_bias", "subset": "conflict,shape=3", "note": "plus"},
            {"image_set": "conflict", "factor": "shape", "class": 3, "note": "plus"},
        ),
        ({"quantity": "shape_bias", "subset": "conflict_swapped"}, {"image_set": "conflict_swapped", "factor": None}),
        ({"quantity": "i_t_shape", "subset": "factorial"}, {"image_set": "factorial"}),
        (
            {"quantity": "accuracy", "subset": "low_pass", "level": 8.0},
            {"image_set": "test", "distortion": "low_pass", "level": 8.0},
        ),
        ({"quantity": "wave_error", "inputs": "wave", "level": 2.0}, {"inputs": "clean", "distortion": "wave"}),
        ({"quantity": "i_tx_change", "subset": "since untrained"}, {"reference": "untrained"}),
        ({"quantity": "i_tx_change", "subset": "from baseline"}, {"reference": "baseline"}),
        (
            {"quantity": "delta_oracle_p", "subset": "exchanged within classes", "note": "pgd-20 linf eps=8/255"},
            {"quantity": "texture_match_p", "reference": "within_class", "image_set": "redundant", **PGD_20},
        ),
        (
            {"quantity": "attack_sign", "subset": "overconfident", "note": "warning: steep"},
            {"quantity": "sanity_check", "estimator": "overconfident", "note": "warning: steep"},
        ),
        ({"quantity": "attack_checks"}, {"quantity": "sanity_check_warnings", "checkpoint": "last"}),
        (
            {"quantity": "shape_bias", "run": "rho_shape=1,rho_texture=2,fine", "subset": "conflict", "step": None},
            {"cell": "rho_shape=1,rho_texture=2,fine", "run": None, "checkpoint": "last"},
        ),
    ],
)  # fmt: skip
def test_an_old_row_has_its_facts_in_columns(tmp_path, old, new):
    write(tmp_path, old_row(**old))
    (row,) = records.load(tmp_path).replace({np.nan: None}).to_dict("records")
    assert {name: row[name] for name in new} == new
    assert row["value"] == 0.5


def test_rows_of_the_finished_network_are_those_of_the_final_evaluation_and_of_studies(tmp_path):
    final = {"quantity": "accuracy", "subset": "test", "note": "final"}
    write(
        tmp_path,
        old_row(quantity="accuracy", subset="test"),
        old_row(quantity="shape_bias", subset="conflict", step=46, epoch=1.0),
        old_row(**final, value=0.75),
        old_row(quantity="shape_bias", subset="conflict"),
        old_row(quantity="i_tx_upper", estimator="kde", layer="a", noise_rule="fixed"),
    )
    assert records.load(tmp_path)["checkpoint"].tolist() == ["epoch", "epoch", "last", "last", "epoch"]
    found = read(tmp_path)
    assert found.select_final(quantity="shape_bias")["epoch"].tolist() == [2.0]
    assert found.select_final(quantity="i_tx_upper")["epoch"].tolist() == [2.0]
    assert accuracy_on_test(found)["value"].tolist() == [0.75]


def test_the_finished_network_of_a_run_with_held_out_images_is_its_best(tmp_path):
    write(
        tmp_path,
        old_row(quantity="best_epoch", subset="held_out", value=2.0, step=184, epoch=4.0),
        old_row(quantity="accuracy", subset="test", note="final"),
    )
    assert records.load(tmp_path)["checkpoint"].tolist() == ["epoch", "best"]


def test_a_study_repeated_in_the_present_format_supersedes_the_old_rows(tmp_path):
    study = {"quantity": "shape_bias", "training": "nt", "seed": 0, "step": 92, "epoch": 2.0, "inputs": "clean"}
    write(
        tmp_path,
        old_row(quantity="accuracy", subset="test", note="final"),
        old_row(quantity="shape_bias", subset="conflict"),
    )
    records.append(tmp_path, [records.Record(**study, value=0.25, checkpoint="last", image_set="conflict")])
    frame = records.load(tmp_path)
    assert frame[frame["quantity"] == "shape_bias"]["value"].tolist() == [0.25]


def test_a_present_row_that_lost_its_checksum_is_not_taken_for_an_old_one(tmp_path):
    (tmp_path / "records.jsonl").write_text('{"quantity": "accuracy", "value": 0.5, "ok": true}\n')
    with pytest.raises(InputError, match="Line 1 of"):
        records.load(tmp_path)


@pytest.mark.parametrize("columns", [{"subset": 5}, {"note": 5}, {"subset": "class=x"}, {"subset": "conflict,shape=x"}])
def test_an_old_row_whose_text_is_damaged_is_named_by_its_number(tmp_path, columns):
    write(tmp_path, old_row(quantity="accuracy", subset="test"), old_row(quantity="accuracy", **columns))
    with pytest.raises(InputError, match=r"Line 2 of .*records\.jsonl is damaged"):
        records.load(tmp_path)


def test_array_files_of_an_older_run_are_found_under_the_present_names(tmp_path):
    write(tmp_path, old_row(quantity="accuracy", subset="test"))
    np.savez(tmp_path / "cue_answers.npz", **{"answers.nt.0": np.arange(3)})
    assert read(tmp_path).arrays("shape_bias")["predictions.nt.0"].tolist() == [0, 1, 2]
    assert read(tmp_path).arrays("fourier") is None
