"""Figures: what is drawn equals the records' means and intervals, read back from the axes."""

import dataclasses
import errno
import itertools
import math
import os
import re
import shutil

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

from mi_jax import records
from mi_jax.claims.trend_band import Band
from mi_jax.plotting import style
from mi_jax.plotting.figures import register
from mi_jax.plotting.panels import ceiling_of
from mi_jax.records import run_records as run_records_module
from mi_jax.records.table import Record
from mi_jax.report import figures
from mi_jax.report.figures import examples, trend_difference
from mi_jax.report.tables import accuracies
from mi_jax.statistics.intervals import t_interval, wilson

OWN = {
    *("training_curves", "robustness", "examples", "information_depth", "information_difference"),
    *(f"information_epochs_{q}_upper_{rule}" for q in ("i_tx", "i_ty") for rule in ("fixed", "trace")),
    *("information_epochs_i_tx_binning", "information_epochs_i_ty_binning"),
    *("information_plane_fixed", "information_plane_trace", "class_information"),
}


@pytest.fixture(scope="module")
def run_records(run_dir):
    return run_records_module.read(run_dir)


def spec_of(name, run_records):
    (found,) = (spec for spec in figures.available(run_records) if spec.name == name)
    return found


def drawn(name, run_records):
    figure = spec_of(name, run_records).draw(run_records)
    FigureCanvasAgg(figure).draw()
    return figure


def colour(training):
    return to_hex(style.colour_of(training, ()))


def curves(axes):
    """The lines that join points, by colour and style."""
    lines = [line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None"]
    return {(to_hex(line.get_color()), line.get_linestyle()): line for line in lines if line.get_marker() == "None"}


def bands(axes):
    """The lower and upper edge of every band by colour; x in steps of the epochs."""
    found = {}
    for band in axes.collections:
        vertices = np.asarray(band.get_paths()[0].vertices)
        found.setdefault(to_hex(band.get_facecolor()[0]), []).append(vertices)
    return found


def values_by_seed(run_records, **columns):
    rows = run_records.select(**columns)
    return rows.pivot_table(index="seed", columns="epoch", values="value").to_numpy()


@pytest.mark.parametrize("wrong", [[3.01], [100.0], [-5.0], [7.5], [np.nan], []])
def test_values_that_are_not_drawn_are_missed(assert_shows, wrong):
    figure = Figure()
    left, right = figure.subplots(1, 2)
    left.plot([1, 2], [3.0, 4.0])
    right.imshow([[7.0, 8.0]])
    assert_shows(figure, [3.0, 4.0, 7.0, 8.0])
    with pytest.raises(AssertionError):
        assert_shows(figure, wrong)


def test_a_finished_run_shows_every_figure_once_in_order(run_records):
    found = [spec.name for spec in figures.available(run_records)]
    assert set(found) >= OWN
    assert len(found) == len(set(found))
    assert found[0] == "training_curves"


def test_every_figure_has_a_caption_and_an_alternative_text(run_records):
    found = figures.available(run_records)
    for spec in found:
        if spec.name in OWN - {"examples"}:
            assert "3 seeds" in spec.caption(run_records), spec.name
    assert all(re.fullmatch(r"[A-Z].+\.", spec.alt) for spec in found), "no sentence"
    assert len({spec.title for spec in found}) == len(found)


def test_information_curves_are_the_means_of_the_records_with_their_t_interval(run_records):
    panels = drawn("information_epochs_i_tx_upper_fixed", run_records).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["conv0", "conv1", "logits"]
    wanted = {"quantity": "i_tx_upper", "noise_rule": "fixed", "layer": "conv1", "inputs": "adversarial"}
    by_seed = values_by_seed(run_records, training="at", **wanted)
    line = curves(panels[1])[colour("at"), "--"]
    np.testing.assert_allclose(line.get_xdata(), [0, 1, 2, 4, 8])
    np.testing.assert_allclose(line.get_ydata(), by_seed.mean(axis=0))
    expected = [t_interval(column) for column in by_seed.T]
    edges = [v for v in bands(panels[1])[colour("at")] if np.isclose(v[:, 1].max(), max(e.high for e in expected))]
    assert any(np.isclose(v[:, 1].min(), min(e.low for e in expected)) for v in edges)


def test_saturated_points_are_hollow_and_the_ceiling_is_log_n(run_records):
    axes = drawn("information_epochs_i_tx_upper_fixed", run_records).axes[0]
    rows = run_records.select(quantity="i_tx_upper", noise_rule="fixed", layer="conv0")
    flagged = rows.groupby(["training", "inputs", "epoch"])["saturated"].any().sum()
    hollow = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    assert sum(len(line.get_xdata()) for line in hollow) == flagged > 0
    ceiling = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in ceiling] == [pytest.approx(math.log2(1000))]


def test_estimates_from_too_few_samples_are_hollow_and_counted_in_the_caption(run_records):
    name = "information_epochs_i_tx_upper_trace"
    rows = run_records.records
    at_the_end = rows["training"].eq("nt") & rows["inputs"].eq("clean") & rows["epoch"].eq(8.0)
    chosen = at_the_end & rows["quantity"].eq("i_tx_upper") & rows["noise_rule"].eq("trace") & rows["layer"].eq("conv0")
    unreliable = rows["unreliable"].astype(object).mask(chosen, "sample size")
    flagged = dataclasses.replace(run_records, records=rows.assign(saturated=False, unreliable=unreliable))
    axes = drawn(name, flagged).axes[0]
    hollow = [line for line in axes.lines if line.get_marker() == "o" and line.get_markerfacecolor() == "white"]
    assert [line.get_xdata().tolist() for line in hollow] == [[8.0]]
    assert f"are unreliable (too few samples {chosen.sum()})" in spec_of(name, flagged).caption(flagged)


def test_difference_is_paired_by_seed(run_records):
    figure = drawn("information_difference", run_records)
    rows = run_records.select(quantity="i_tx_upper", noise_rule="trace", inputs="clean", epoch=8.0)
    table = rows.pivot_table(index="seed", columns=["layer", "training"], values="value")
    expected = [(table[layer]["at"] - table[layer]["nt"]).mean() for layer in ("conv0", "conv1", "logits")]
    line = curves(figure.axes[1])[colour("at"), "-"]
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_plane_ends_where_the_records_end(run_records):
    axes = drawn("information_plane_fixed", run_records).axes[1]
    assert axes.get_title(loc="left") == "AT, clean inputs"
    where = {
        "training": "at",
        "inputs": "clean",
        "layer": "logits",
        "noise_rule": "fixed",
        "epoch": 8.0,
        "class": None,
    }
    end = [run_records.select(quantity=quantity, **where)["value"].mean() for quantity in ("i_tx_upper", "i_ty_upper")]
    line = curves(axes)[style.layer_colours(3)[2], "-"]
    np.testing.assert_allclose([line.get_xdata()[-1], line.get_ydata()[-1]], end)


def test_training_curves_are_in_per_cent_with_their_band(run_records):
    axes = drawn("training_curves", run_records).axes[3]
    by_seed = values_by_seed(run_records, quantity="accuracy", training="at", inputs="clean", image_set="test")
    line = curves(axes)[colour("at"), "-"]
    np.testing.assert_allclose(line.get_ydata(), 100 * by_seed.mean(axis=0))
    tops = [v[:, 1].max() for v in bands(axes)[colour("at")]]
    assert np.isclose(tops, 100 * max(t_interval(c).high for c in by_seed.T)).any()


def test_held_out_images_and_their_attack_are_in_the_caption_where_there_are_any(run_records, tmp_path):
    attack = {"attack": "pgd", "norm": "linf", "eps": 8 / 255}
    rows = [
        Record(
            quantity="accuracy", value=0.5, training="at", seed=0, epoch=epoch, image_set=image_set, n=n,
            inputs="adversarial", attack_steps=steps, **attack,
        )
        for epoch in (1, 2)
        for image_set, n, steps in (("test", 1000, 7), ("held_out", 60, 10))
    ]  # fmt: skip
    records.append(tmp_path, rows)
    found = run_records_module.read(tmp_path)
    caption = spec_of("training_curves", found).caption(found)
    assert "Test images: n = 1000 samples. Adversarial inputs: PGD-7 Linf 8/255. " in caption
    assert "Held-out images: n = 60 samples; adversarial inputs: PGD-10 Linf 8/255 from a random start. " in caption
    assert "Held-out" not in spec_of("training_curves", run_records).caption(run_records)


def test_two_seeds_are_drawn_with_their_range(make_run, tmp_path):
    two = run_records_module.read(make_run(tmp_path / "two", seeds=2, layers=2, epochs=(0, 4), with_examples=False))
    axes = drawn("information_epochs_i_tx_upper_trace", two).axes[1]
    where = {"quantity": "i_tx_upper", "noise_rule": "trace", "layer": "logits", "inputs": "clean", "training": "nt"}
    by_seed = values_by_seed(two, **where)
    ranges = [(v[:, 1].min(), v[:, 1].max()) for v in bands(axes)[colour("nt")]]
    assert any(np.allclose(ends, (by_seed.min(), by_seed.max())) for ends in ranges)
    assert "bands and whiskers span the two values" in spec_of("information_depth", two).caption(two)


def test_one_seed_has_no_band_and_says_so(make_run, tmp_path):
    one = run_records_module.read(make_run(tmp_path / "one", seeds=1, layers=2, epochs=(0, 4), with_examples=False))
    assert not drawn("training_curves", one).axes[0].collections
    assert "1 seed: no interval can be given." in spec_of("training_curves", one).caption(one)


def test_accuracy_intervals_join_seeds_and_images(tmp_path):
    def row(training, seed, value, n):
        where = {"training": training, "seed": seed, "epoch": 1, "inputs": "clean", "image_set": "test"}
        return Record(quantity="accuracy", value=value, n=n, **where)

    records.append(
        tmp_path, [row("nt", s, 1.0, 50) for s in (0, 1)] + [row("at", s, v, 50) for s, v in enumerate((0.2, 0.8))]
    )
    table = accuracies(run_records_module.read(tmp_path)).set_index("training")
    assert table.loc["nt", ["low", "high"]].tolist() == pytest.approx(wilson(1.0, 50))
    assert table.loc["at", ["low", "high"]].tolist() == [0.0, 1.0]


def test_the_finished_network_supersedes_the_same_attack_followed_on_fewer_images(tmp_path):
    where = {"quantity": "accuracy", "training": "nt", "seed": 0, "epoch": 1, "image_set": "test"}
    pgd = {"inputs": "adversarial", "attack": "pgd", "norm": "linf", "eps": 8 / 255}
    rows = [
        Record(value=0.9, inputs="clean", n=10, checkpoint="epoch", **where),
        Record(value=0.8, inputs="clean", n=100, checkpoint="last", **where),
        Record(value=0.5, n=10, checkpoint="epoch", attack_steps=7, **pgd, **where),
        Record(value=0.3, n=100, checkpoint="last", attack_steps=20, **pgd, **where),
    ]
    records.append(tmp_path, rows)
    table = accuracies(run_records_module.read(tmp_path))
    found = dict(zip(table["attack_label"], table["mean"], strict=True))
    assert found == {"clean": 0.8, "PGD-7 Linf 8/255": 0.5, "PGD-20 Linf 8/255": 0.3}


def test_label_entropy_is_the_ceiling_of_i_ty(run_records):
    rows = run_records.select(quantity="i_ty_upper", noise_rule="fixed")
    assert ceiling_of(run_records, rows, "i_ty") == (pytest.approx(math.log2(10)), "H(Y)")
    assert ceiling_of(run_records, rows.assign(n=7), "i_ty") == (pytest.approx(math.log2(10)), "log₂ K")


def test_a_class_whose_estimates_failed_counts_in_the_ceiling_of_i_ty(tmp_path):
    def within(label, value):
        where = {"training": "nt", "seed": 0, "epoch": 1, "layer": "a", "inputs": "clean", "class_": label}
        return Record(quantity="i_tx_given_y_upper", value=value, n=25, **where)

    records.append(tmp_path, [within(0, math.nan), *(within(label, 1.0) for label in (1, 2, 3))])
    found = run_records_module.read(tmp_path)
    assert ceiling_of(found, found.records.assign(n=100), "i_ty") == (2.0, "H(Y)")
    assert ceiling_of(found, found.records.assign(n=60), "i_ty") == (2.0, "log₂ K")


def test_colours_and_lines_of_conditions_are_fixed_and_distinct():
    trainings = ("at", "nt", "trades", "mart", "gaussian", "mine", "yours", "noise")
    colours = [style.colour_of(training, trainings) for training in trainings]
    assert len(set(colours)) == len(colours)
    assert style.colour_of("nt", ("nt",)) == colours[1]
    assert (style.line_of("clean"), style.line_of("adversarial")) == ("-", "--")


def test_perturbations_are_amplified_to_fill_the_grey_scale():
    assert examples.amplification(np.full((2, 2), 8 / 255)) == 15
    assert examples.amplification(np.full(3, -0.25)) == 2
    assert examples.amplification(np.zeros(3)) == 1
    assert examples.amplification(np.ones(3)) == 1


def test_the_same_records_give_the_same_files(run_records, tmp_path):
    spec = spec_of("robustness", run_records)
    figures.save(spec, run_records, tmp_path)
    first = [(tmp_path / f"robustness.{kind}").read_bytes() for kind in ("png", "svg")]
    figures.save(spec, run_records, tmp_path)
    assert [(tmp_path / f"robustness.{kind}").read_bytes() for kind in ("png", "svg")] == first
    with Image.open(tmp_path / "robustness.png") as image:
        assert image.size[0] == 1440


def test_a_figure_that_cannot_be_written_whole_leaves_the_old_one(run_records, tmp_path, monkeypatch):
    spec = spec_of("robustness", run_records)
    figures.save(spec, run_records, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(self, file, *arguments, **options):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(FigureCanvasSVG, "print_svg", fail)
    with pytest.raises(OSError, match="No space"):
        figures.save(spec, run_records, tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="No space"):
        figures.save(spec, run_records, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_name_is_registered_once(run_records):
    with pytest.raises(ValueError, match="registered already"):
        register(dataclasses.replace(spec_of("robustness", run_records), draw=lambda _: Figure()))


def test_cue_information_through_training_is_drawn_where_it_was_measured_at_several_epochs(tmp_path):
    rows = [
        Record(
            quantity=f"i_t_{cue}", value=level + 0.1 * epoch + 0.01 * seed, unit="bits", training=training, seed=seed,
            epoch=epoch, step=10 * epoch, layer="logits", inputs="clean", estimator="probe", arch="cnn",
            dataset="shapetex", n=100, image_set="factorial",
        )
        for training, seed, epoch, (cue, level) in itertools.product(
            ("nt", "at"), (0, 1), (0, 2, 4), (("shape", 1.0), ("texture", 0.5))
        )
    ]  # fmt: skip
    records.append(tmp_path, rows)
    found = run_records_module.read(tmp_path)
    joined = [line for line in drawn("shape_texture_epochs", found).axes[0].lines if line.get_linestyle() != "None"]
    lines = [line for line in joined if np.array_equal(line.get_xdata(), [0.0, 2.0, 4.0])]
    drawn_means = {(to_hex(line.get_color()), round(float(line.get_ydata()[-1]), 3)) for line in lines}
    assert drawn_means == {(colour(t), mean) for t in ("nt", "at") for mean in (1.405, 0.905)}
    (tmp_path / "once").mkdir()
    records.append(tmp_path / "once", [row for row in rows if row.epoch == 4])
    once = figures.available(run_records_module.read(tmp_path / "once"))
    assert "shape_texture_epochs" not in [spec.name for spec in once]


def test_information_within_each_class_is_the_mean_over_seeds(run_records):
    axes = drawn("class_information", run_records).axes[0]
    rows = run_records.select(
        quantity="i_tx_given_y_upper",
        inputs="clean",
        noise_rule="trace",
        training="nt",
        layer="conv0",
        **{"class": 3},
    )
    expected = rows.groupby("epoch")["value"].mean()
    joined = [line for line in axes.lines if line.get_linestyle() != "None"]
    assert len(joined) == 10
    np.testing.assert_allclose(joined[3].get_ydata(), expected)
    np.testing.assert_allclose(joined[3].get_xdata(), expected.index)


def test_classes_and_layers_that_are_left_out_are_counted_in_the_caption(tmp_path):
    def within(labels, layers):
        where = {"training": "nt", "seed": 0, "inputs": "clean", "estimator": "kde", "noise_rule": "trace", "n": 50}
        return [
            Record(quantity="i_tx_given_y_upper", value=1.0, epoch=epoch, layer=f"conv{i}", class_=label, **where)
            for epoch, i, label in itertools.product((0, 1), range(layers), range(labels))
        ]

    for name, (labels, layers), words in (
        ("both", (21, 5), "Shown: the first 20 of 21 classes and 4 of 5 layers. n = 50"),
        ("layers", (20, 5), "Shown: 4 of 5 layers. n = 50"),
        ("none", (20, 4), "has none. n = 50"),
    ):
        (tmp_path / name).mkdir()
        records.append(tmp_path / name, within(labels, layers))
        found = run_records_module.read(tmp_path / name)
        assert words in spec_of("class_information", found).caption(found)


def test_saturated_bins_are_hollow(run_records):
    panels = drawn("information_epochs_i_tx_binning", run_records).axes
    faces = [{line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"} for axes in panels[:3]]
    assert faces[0] == {"white"}, "the fixture saturates binning in the first half of the layers"
    assert "white" not in faces[2]


def test_the_seeds_are_points_where_they_are_few(run_records):
    axes = drawn("information_epochs_i_tx_upper_trace", run_records).axes[1]
    where = {"quantity": "i_tx_upper", "noise_rule": "trace", "layer": "conv1", "inputs": "clean", "training": "nt"}
    by_seed = values_by_seed(run_records, **where)
    points = [line.get_ydata() for line in axes.lines if line.get_marker() == "."]
    assert any(np.allclose(np.sort(found), np.sort(by_seed.ravel())) for found in points)


def test_trainings_have_colours_and_noise_has_a_name_of_its_own():
    trainings = ("nt", "at", "trades", "mart", "noise", "fast", "vib", *(f"own{i}" for i in range(100)))
    colours = [style.colour_of(training, trainings) for training in trainings]
    assert len(set(colours)) == len(trainings)
    assert colours[:7] == [style.colour_of(training, ()) for training in trainings[:7]] == list(style.PALETTE)
    (handle,) = style.condition_handles(["noise"], ["clean"])
    assert handle.get_label() == "Gaussian noise, clean"


def test_label_free_attacks_have_a_figure_of_their_own_and_stay_out_of_the_others(tmp_path):
    values = {None: 1.0, "pgd": 3.0, "pgd-prediction": 0.5, "pgd-random-target": 0.25}
    rows = [
        Record(
            quantity=quantity, value=value + 0.1 * seed, unit="bits", training="nt", seed=seed, epoch=4, layer="logits",
            inputs="adversarial" if attack else "clean", attack=attack, checkpoint="last", image_set="test", n=100,
            estimator="kde", noise_rule="scale_free", noise_variance=0.1, saturated=False,
        )
        for quantity in ("i_tx_upper", "i_ty_upper")
        for seed in (0, 1)
        for attack, value in values.items()
    ]  # fmt: skip
    records.append(tmp_path, rows)
    found = run_records_module.read(tmp_path)
    lines = curves_of(drawn("label_leak", found).axes[0])
    assert lines == [pytest.approx(value + 0.05) for value in values.values()]
    depth = drawn("information_depth", found).axes[1]
    assert curves_of(depth) == [pytest.approx(1.05), pytest.approx(3.05)]


def curves_of(axes):
    """The mean of each condition on the single layer, in the order of drawing."""
    lines = [line for line in axes.lines if line.get_gid() == "fitted" and len(line.get_xdata()) == 1]
    return [float(line.get_ydata()[0]) for line in lines]


def test_one_measured_epoch_is_not_called_a_range(make_run, tmp_path):
    one = run_records_module.read(make_run(tmp_path / "one", seeds=2, layers=2, epochs=(4,), with_examples=False))
    caption = spec_of("information_epochs_i_tx_upper_trace", one).caption(one)
    assert "samples, epoch 4 measured." in caption


@pytest.mark.parametrize(("seeds", "points"), [(3, True), (style.FEW_SEEDS, False)])
def test_the_seeds_are_in_the_caption_where_they_are_drawn(tmp_path, seeds, points):
    where = {"quantity": "accuracy", "training": "nt", "epoch": 1, "inputs": "clean", "image_set": "test", "n": 100}
    records.append(tmp_path, [Record(value=0.5 + 0.01 * seed, seed=seed, **where) for seed in range(seeds)])
    run_records = run_records_module.read(tmp_path)
    assert bool(drawn("robustness", run_records).axes[0].collections[1:]) is points
    assert ("points: seeds" in spec_of("robustness", run_records).caption(run_records)) is points


def test_a_layer_whose_estimate_failed_keeps_its_place_in_every_panel(make_run, tmp_path):
    run_dir = make_run(tmp_path / "failed", seeds=2, layers=3, epochs=(0, 4), with_examples=False)
    run_records = run_records_module.read(run_dir)
    rows = run_records.records
    failed = rows["quantity"].eq("i_tx_upper") & rows["layer"].eq("conv0") & rows["epoch"].eq(4)
    figure = drawn("information_depth", dataclasses.replace(run_records, records=rows[~failed]))
    for axes in figure.axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["conv0", "conv1", "logits"]
    line = figure.axes[0].lines[0]
    wanted = {"quantity": "i_tx_upper", "noise_rule": "fixed", "inputs": "clean", "training": "nt", "epoch": 4.0}
    means = run_records.select(**wanted).groupby("layer")["value"].mean()
    np.testing.assert_allclose(line.get_ydata(), [np.nan, means["conv1"], means["logits"]])
    np.testing.assert_allclose(np.round(line.get_xdata()), [0, 1, 2])


@pytest.mark.parametrize("name", ["scale_split", "information_values"])
def test_a_layer_whose_estimate_failed_keeps_its_place_in_the_panels_of_a_study(tmp_path, name):
    where = {"value": 1.0, "stderr": 0.1, "seed": 0, "epoch": 1, "inputs": "clean", "checkpoint": "last", "n": 9}
    changes = ("i_tx_change", "i_tx_change_scale", "i_tx_change_shape")
    rows = [
        Record(quantity=quantity, layer=layer, noise_rule=rule, training="at", **where, **columns)
        for rule in ("fixed", "trace")
        for layer in ("a", "b")
        for quantities, columns in (
            (changes, {"reference": "baseline"}),
            (("i_tx", "i_ty"), {"estimator": "monte_carlo"}),
        )
        for quantity in quantities
        if (rule, layer) != ("trace", "a")
    ]
    records.append(tmp_path, [Record(quantity="loss", training="nt", **where), *rows])
    last = drawn(name, run_records_module.read(tmp_path)).axes[-1]
    assert [label.get_text() for label in last.get_xticklabels()] == ["a", "b"]
    places = [bar.get_x() + bar.get_width() / 2 for bar in last.patches if np.isfinite(bar.get_height())]
    places += [
        x for line in last.lines for x, y in zip(*line.get_data(), strict=True) if line.get_marker() == "o" and y == 1
    ]
    assert set(np.round(places)) == {1}


def test_the_caption_of_the_accuracies_names_every_epoch_shown(tmp_path):
    """While one training continues, its clean accuracy is compared at an epoch that no attack was measured at."""
    where = {"quantity": "accuracy", "value": 0.5, "seed": 0, "image_set": "test", "n": 100}
    rows = [
        Record(training=training, epoch=epoch, inputs="clean", checkpoint="epoch", **where)
        for training, last in (("nt", 4), ("at", 2))
        for epoch in range(last + 1)
    ]
    attack = {"inputs": "adversarial", "attack": "pgd", "norm": "linf", "eps": 0.1, "attack_steps": 20}
    rows.append(Record(training="nt", epoch=4, checkpoint="last", **where, **attack))
    records.append(tmp_path, rows)
    run_records = run_records_module.read(tmp_path)
    caption = spec_of("robustness", run_records).caption(run_records)
    assert caption.startswith("Test accuracy at the end of training (epoch 2 to 4), 1 seed.")


def test_labels_of_many_attacks_and_names_of_classes_do_not_overlap(run_dir, tmp_path):
    where = {"quantity": "accuracy", "value": 0.5, "epoch": 1, "seed": 0, "image_set": "test", "n": 100}
    attack = {"inputs": "adversarial", "attack": "pgd", "norm": "linf", "eps": 8 / 255, "restarts": 10}
    rows = [
        Record(training=training, attack_steps=steps, **where, **attack)
        for training in ("nt", "at", "trades")
        for steps in range(10, 18)
    ]
    records.append(tmp_path, rows)
    images, said = np.zeros((8, 8, 8, 1), np.float32), {"nt": np.ones(8, int)}
    examples.save(
        tmp_path, images=images, labels=np.zeros(8, int), class_names=["aquarium_fish", "n02099601 golden retriever"],
        adversarial={"nt": images}, predicted_clean={"nt": np.zeros(8, int)}, predicted_adversarial=said, attack="PGD",
    )  # fmt: skip
    many = run_records_module.read(tmp_path)
    bars = drawn("robustness", many).axes[0]
    assert_apart(list(bars.get_xticklabels()))
    assert_apart(bars.texts)
    shown = drawn("examples", many).axes[0].texts
    assert_apart([text for text in shown if text.get_text().startswith("→ n0")])
    assert "aquarium_fish" in [text.get_text() for text in shown]


def assert_apart(texts):
    ends = sorted((box.x0, box.x1) for box in (text.get_window_extent() for text in texts))
    assert len(ends) > 7
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(ends))


def test_the_legend_of_many_layers_stays_within_the_figure(make_run, tmp_path):
    run_dir = make_run(tmp_path / "deep", seeds=1, layers=24, epochs=(0, 4), with_examples=False)
    run_records = run_records_module.read(run_dir)
    rows = run_records.records
    clean = dataclasses.replace(run_records, records=rows[rows["inputs"] != "adversarial"])
    figure = drawn("information_plane_trace", clean)
    box = figure.legends[0].get_window_extent()
    assert box.y0 >= 0
    assert box.y1 <= figure.bbox.y1


def test_epochs_are_labelled_below_the_lowest_panel_of_each_column(run_records, monkeypatch):
    epochs = np.arange(1.0, 4.0)
    one = Band(epochs, epochs, np.ones(3), epochs[None], 1.0)
    found = {("i_tx", "fixed"): one, ("i_tx", "trace"): one, ("i_ty", "trace"): one}
    monkeypatch.setattr(trend_difference, "bands", lambda _: found)
    figure = trend_difference._draw(run_records)
    FigureCanvasAgg(figure).draw()
    lowest = [axes for axes in figure.axes if axes.get_xlabel() == "epoch"]
    titles = [axes.get_title(loc="left") for axes in lowest]
    assert titles == ["I(X;T), fixed noise rule", "I(T;Y), trace noise rule"]
    assert all(axes.get_visible() and axes.xaxis.get_tick_params()["labelbottom"] for axes in lowest)


def test_names_of_classes_are_no_formulas_and_large_perturbations_are_not_amplified(run_dir, tmp_path):
    shutil.copy(run_dir / "records.jsonl", tmp_path)
    images = np.zeros((1, 8, 8, 1), np.float32)
    said = {"nt": np.zeros(1, int)}
    examples.save(
        tmp_path, images=images, labels=np.zeros(1, int), class_names=["$^$"], adversarial={"nt": images + 0.4},
        predicted_clean=said, predicted_adversarial=said, attack="PGD-7 L2 2",
    )  # fmt: skip
    run_records = run_records_module.read(tmp_path)
    assert "$^$" in [text.get_text() for text in drawn("examples", run_records).axes[0].texts]
    caption = spec_of("examples", run_records).caption(run_records)
    assert caption.startswith("1 test image, ")
    assert "and the difference, around grey." in caption
