"""The page: well formed, complete in itself, escaped, and rebuilt from records alone."""

import base64
import io
import json
import re
import runpy
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from mi_jax import cli, records, report
from mi_jax.claims import evaluate
from mi_jax.errors import InputError
from mi_jax.records import labels
from mi_jax.records.table import Record
from mi_jax.report import figures, html_tables, overview, read, tables, terminal
from mi_jax.report.figures import examples

VOID = {"meta", "img", "br"}
REPORT = Path(__file__).parents[2] / "experiments" / "report.py"


class Page(HTMLParser):
    """Checks that tags nest and collects ids, links, sources and text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.alts, self.text = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [found["href"]] if "href" in found else []
        if tag == "img":
            self.sources.append(found["src"])
            self.alts.append(found["alt"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def run_dir(build_once, make_run):
    """A small finished run with its report."""

    def build(directory: Path) -> None:
        report.build(make_run(directory, layers=3, epochs=(0, 1, 2, 4, 8)), every_figure=True)

    return build_once("reported", build)


@pytest.fixture(scope="module")
def built(run_dir):
    path = run_dir / "report.html"
    return path, path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_its_links_lead_somewhere(built):
    page = Page(built[1])
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert all(link[1:] in page.ids for link in page.links if not link.startswith("data:text/csv"))


def test_the_page_needs_nothing_outside_itself(built):
    page = Page(built[1])
    assert not re.search(r"https?://|<script|<link|@import|url\(", built[1])
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(page.alts)


def test_minor_figures_are_drawn_only_when_asked_for(built, run_dir, tmp_path, monkeypatch):
    def save_a_dot(spec, _, directory):
        path = directory / f"{spec.name}.png"
        Image.new("1", (1, 1)).save(path)
        return path

    monkeypatch.setattr(figures, "save", save_a_dot)
    run_records = read(run_dir)
    minor = {spec.name for spec in figures.available(run_records) if spec.minor(run_records)}
    brief = tmp_path / "brief"
    shutil.copytree(run_dir, brief, ignore=shutil.ignore_patterns("figures", "report.html"))
    page = Page(report.build(brief).read_text(encoding="utf-8"))
    assert minor
    assert not minor & set(page.ids)
    assert not minor & {path.stem for path in (brief / "figures").iterdir()}
    assert f"{len(minor)} more figures" in " ".join(page.text)
    assert minor <= set(Page(built[1]).ids)


def test_every_figure_is_a_file_and_on_the_page(built, run_dir):
    page = Page(built[1])
    for spec in figures.available(read(run_dir)):
        content = (run_dir / "figures" / f"{spec.name}.png").read_bytes()
        assert f"data:image/png;base64,{base64.b64encode(content).decode()}" in page.sources
        assert spec.name in page.ids


def test_the_page_opens_with_the_answers_and_its_contents_name_every_section(built):
    page = Page(built[1])
    sections = ["answers", "setup", "claims", "numbers", "figures", "glossary", "record"]
    assert [name for name in page.ids if name in sections] == sections
    assert [link[1:] for link in page.links[:7]] == sections


def test_what_users_write_is_escaped(built):
    assert "<b>bold</b>" not in built[1]
    assert "&lt;b&gt;bold&lt;/b&gt;" in built[1]


def test_values_come_with_their_intervals(built, run_dir):
    (claim,) = (claim for claim in evaluate(read(run_dir)) if claim.number == "2a")
    found = claim.weakest("trace")
    value = html_tables.number(found.value, "relative", signed=True)
    assert f"{value} {html_tables.interval(found.low, found.high, 'relative')}" in built[1]


def test_failed_estimates_are_listed_unless_a_later_attempt_mended_them(tmp_path):
    where = {"quantity": "i_tx", "training": "at", "seed": 0, "epoch": 1, "layer": "conv<1>", "estimator": "kde"}
    failed = Record(value=None, ok=False, note="layer <is> constant", **where)
    other = Record(value=None, ok=False, note="not mended", **{**where, "seed": 1})
    records.append(tmp_path, [failed, other, Record(value=1.0, **where)])
    text = report.build(tmp_path).read_text(encoding="utf-8")
    assert "1 estimate failed" in text
    assert "not mended" in text
    assert "is&gt; constant" not in text
    assert "not mended" in (tmp_path / "tables" / "failed.csv").read_text()
    records.append(tmp_path, [Record(value=1.0, **{**where, "seed": 1})])
    assert "not mended" not in report.build(tmp_path).read_text(encoding="utf-8")
    assert not (tmp_path / "tables" / "failed.csv").exists()


def test_transfers_are_shares_with_intervals_between_0_and_100_per_cent(tmp_path):
    where = {"quantity": "transfer_accuracy", "epoch": 1, "source": "at", "training": "nt", "n": 50}
    loss = Record(quantity="loss", value=1.0, training="at", seed=0, epoch=1)
    records.append(tmp_path, [loss, *(Record(value=v, seed=s, **where) for s, v in enumerate((0.3, 0.6, 0.9)))])
    assert '60.0 %</span> <span class="ends">[0.0, 100.0]' in html_tables.transfers(read(tmp_path))


def test_the_lowest_records_make_a_page(tmp_path):
    records.append(tmp_path, [Record(quantity="loss", value=1.0)])
    page = Page(report.build(tmp_path).read_text(encoding="utf-8"))
    assert "No test accuracy was recorded." in "".join(page.text)
    assert "No estimate failed." in "".join(page.text)


def test_accuracies_without_an_epoch_make_a_page(tmp_path):
    where = {"quantity": "accuracy", "value": 0.5, "training": "nt", "seed": 0, "image_set": "test", "inputs": "clean"}
    records.append(tmp_path, [Record(n=100, **where)])
    assert "No test accuracy" in report.build(tmp_path).read_text(encoding="utf-8")


def test_an_unfinished_run_says_so(tmp_path):
    records.append(tmp_path, [Record(quantity="loss", value=1.0, training="nt", seed=0)])
    (tmp_path / "provenance.json").write_text(json.dumps({"end": None}))
    assert "has not finished" in report.build(tmp_path).read_text(encoding="utf-8")


def test_a_third_training_gets_its_own_claims(tmp_path):
    where = {"quantity": "accuracy", "value": 0.5, "seed": 0, "epoch": 1, "inputs": "clean", "image_set": "test"}
    records.append(tmp_path, [Record(training=training, **where) for training in ("nt", "trades", "at")])
    text = report.build(tmp_path).read_text(encoding="utf-8")
    assert "AT against NT" in text
    assert "The same claims for TRADES" in text
    assert "TRADES against NT" in text


def test_the_terminal_shows_the_verdicts_of_the_page(run_dir):
    screen = io.StringIO()
    Console(width=200, file=screen).print(*terminal.tables_of(run_dir))
    shown = screen.getvalue()
    assert "PGD-20 Linf 8/255" in shown
    for claim in evaluate(read(run_dir)):
        line = next(row for row in shown.splitlines() if claim.name in row)
        found = [claim.verdict(noise_rule) for noise_rule in ("fixed", "trace")]
        assert [word in line for word in found] == [True, True]
        weakest = claim.weakest("fixed")
        assert html_tables.value_of(weakest) in shown if weakest.value is not None else weakest.remark in shown


@pytest.mark.parametrize("width", [100, 60, 40, 30])
def test_the_terminal_cuts_no_number_at_any_width(run_dir, width):
    screen = io.StringIO()
    Console(width=width, file=screen).print(*terminal.tables_of(run_dir))
    shown = screen.getvalue()
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    folded = "".join(shown.split())
    for row in tables.accuracies(read(run_dir)).to_dict("records"):
        assert html_tables.number(row["mean"], "share").replace(" ", "") in folded


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437"])
def test_the_terminal_prints_in_any_encoding(run_dir, encoding):
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    Console(width=100, file=screen).print(*terminal.tables_of(run_dir))
    assert "undecided" in raw.getvalue().decode(encoding)


def test_tables_are_written_as_csv_and_carried_by_the_page(built, run_dir):
    claims = pd.read_csv(run_dir / "tables" / "claims.csv")
    expected = [statistic.value for claim in evaluate(read(run_dir)) for statistic in claim.statistics]
    np.testing.assert_allclose(claims["value"], np.array(expected, dtype=float))
    accuracy = pd.read_csv(run_dir / "tables" / "accuracy.csv").set_index(["training", "attack_label"])
    assert accuracy.loc[("at", "PGD-20 Linf 8/255"), "values"].count(" ") == 2, "one value per seed"
    links = [link for link in Page(built[1]).links if link.startswith("data:text/csv;base64,")]
    carried = [base64.b64decode(link.partition(",")[2]) for link in links]
    assert carried == [(run_dir / "tables" / f"{name}.csv").read_bytes() for name in ("claims", "accuracy")]


def test_figures_of_saturated_estimates_alone_are_left_out_and_named(tmp_path):
    where = {"training": "nt", "inputs": "clean", "estimator": "kde", "unit": "bits", "n": 100, "image_set": "test"}
    records.append(
        tmp_path,
        [
            Record(
                quantity=quantity, value=6.6, seed=seed, epoch=epoch, layer="a", noise_rule=rule, noise_variance=0.1,
                saturated=rule == "fixed" and seed == 0, **where,
            )
            for quantity in ("i_tx_upper", "i_ty_upper")
            for seed in range(2)
            for epoch in (0, 1)
            for rule in ("fixed", "trace")
        ],
    )  # fmt: skip
    page = Page(report.build(tmp_path).read_text(encoding="utf-8"))
    drawn = {name for name in page.ids if name.startswith(("information_epochs", "information_plane"))}
    assert drawn == {f"{name}_trace" for name in (
        "information_epochs_i_tx_upper", "information_epochs_i_ty_upper", "information_plane"
    )}  # fmt: skip
    assert "I(X;T) through training, fixed noise rule: not drawn" in "".join(page.text)


def test_i_ty_on_adversarial_inputs_comes_with_the_warning_that_the_attack_knows_the_label(run_dir):
    run_records = read(run_dir)
    captions = {spec.name: spec.caption(run_records) for spec in figures.available(run_records)}
    for name in ("information_epochs_i_ty_upper_trace", "information_depth", "information_plane_trace"):
        assert labels.LABEL_LEAK in captions[name]
        assert "Adversarial inputs: PGD-7 Linf 8/255." in captions[name]
    assert labels.LABEL_LEAK not in captions["information_epochs_i_tx_upper_trace"]


def test_a_quick_run_says_that_it_is_small(tmp_path):
    records.append(
        tmp_path, [Record(quantity="loss", value=1.0, training="at", seed=0, arch="vgg11", dataset="shapetex")]
    )
    (tmp_path / "config.json").write_text(json.dumps({"preset": "quick", "width": 0.125}))
    text = "".join(Page(report.build(tmp_path).read_text(encoding="utf-8")).text)
    assert "vgg11 networks trained adversarially on ShapeTex" in text
    assert "This is a quick run: a small network" in text
    assert "vgg11, width factor 0.125" in text
    (tmp_path / "config.json").write_text(json.dumps({"preset": "paper"}))
    assert "quick run" not in report.build(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("trainings", "expected"),
    [
        ({"nt": "clean", "noise": "noisy"}, {"Attack for measurements": "PGD-7 Linf 8/255"}),
        ({"nt": "clean", "at": "adversarial"}, {"Attack in training": "PGD-7 Linf 8/255"}),
        ({"fast": "adversarial"}, {
            "Attack in training": "PGD-1 Linf 8/255", "Attack for measurements": "PGD-7 Linf 8/255"
        }),
    ],
)  # fmt: skip
def test_the_attack_is_named_for_what_it_was_used(tmp_path, trainings, expected):
    where = {"quantity": "loss", "value": 1.0, "seed": 0, "epoch": 1, "image_set": "train"}
    records.append(tmp_path, [Record(training=name, inputs=inputs, **where) for name, inputs in trainings.items()])
    attack = {"norm": "linf", "eps": 8 / 255, "steps": 7, "restarts": 1}
    (tmp_path / "config.json").write_text(json.dumps({"attack": attack}))
    facts = overview.facts(read(tmp_path))
    assert {name: fact for name, fact in facts.items() if name.startswith("Attack")} == expected


def test_the_images_for_information_are_those_measured_through_training(tmp_path):
    where = {"value": 1.0, "training": "nt", "seed": 0, "epoch": 1, "layer": "a", "inputs": "clean"}
    kde = {"quantity": "i_tx_upper", "estimator": "kde", **where}
    of_studies = [
        Record(n=700, image_set="redundant", **kde),
        Record(n=800, image_set="test", distortion="blur", level=1.0, **kde),
        Record(n=900, image_set="test", quantity="i_tx", estimator="ksg", **where),
    ]
    records.append(tmp_path, [Record(n=500, image_set="test", noise_rule="fixed", **kde), *of_studies])
    assert overview.facts(read(tmp_path))["Images for information"] == "500"


def test_directories_without_records_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        report.build(tmp_path / "nowhere")
    records.append(tmp_path, [])
    with pytest.raises(InputError, match="no measured value yet"):
        report.build(tmp_path)


def test_broken_files_beside_the_records_are_named(tmp_path):
    records.append(tmp_path, [Record(quantity="loss", value=1.0)])
    np.savez_compressed(tmp_path / "examples.npz", a=np.zeros(9))
    damaged = bytearray((tmp_path / "examples.npz").read_bytes())
    damaged[30 + damaged[26] + damaged[28]] = 255  # after header, name and extra field: no block of zlib begins so
    for content in (b"PK broken", b"", damaged):
        (tmp_path / "examples.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"examples\.npz is not a readable array file"):
            report.build(tmp_path)
    (tmp_path / "examples.npz").unlink()
    (tmp_path / "provenance.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"provenance\.json is not readable JSON; restore it or delete it"):
        report.build(tmp_path)
    (tmp_path / "provenance.json").unlink()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json is damaged"):
        report.build(tmp_path)


def test_examples_that_do_not_fit_together_are_refused(tmp_path):
    good = {"images": np.zeros((2, 4, 4, 3)), "labels": np.zeros(2, int), "class_names": ["a"], "attack": "pgd"}
    adversarial_images = {"nt": np.zeros((2, 4, 4, 3))}
    said = {"nt": np.zeros(2, int)}
    parts = {"adversarial": adversarial_images, "predicted_clean": said, "predicted_adversarial": said}
    with pytest.raises(InputError, match="expected \\[n h w c\\]"):
        examples.save(tmp_path, **{**good, "images": np.zeros((2, 4, 4))}, **parts)
    with pytest.raises(InputError, match="different trainings"):
        examples.save(tmp_path, **good, **{**parts, "predicted_clean": {"at": said["nt"]}})
    with pytest.raises(InputError, match="expected 2 integers"):
        examples.save(tmp_path, **{**good, "labels": np.zeros(3, int)}, **parts)
    assert list(tmp_path.iterdir()) == []


def test_the_script_rebuilds_the_same_page(tmp_path, capsys, monkeypatch):
    where = {"quantity": "accuracy", "training": "nt", "epoch": 1, "inputs": "clean", "image_set": "test", "n": 100}
    records.append(tmp_path, [Record(value=0.5 + 0.1 * seed, seed=seed, **where) for seed in range(3)])
    path = report.build(tmp_path)
    before = path.read_text(encoding="utf-8")
    path.unlink()
    monkeypatch.setattr(sys, "argv", ["experiments/report.py", str(tmp_path)])
    runpy.run_path(str(REPORT), run_name="__main__")
    assert capsys.readouterr().out.strip() == str(path)
    assert path.read_text(encoding="utf-8") == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["figures", "records.jsonl", "report.html", "tables"]


def test_the_report_command_refuses_bad_input_in_one_sentence(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["report", str(tmp_path / "x")])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: The run directory")
    assert error.count("\n") == 1


def test_a_run_of_one_seed_claims_no_interval_over_seeds(tmp_path, make_run):
    run_dir = make_run(tmp_path / "one", seeds=1, layers=2, epochs=(0, 4), with_examples=False)
    where = {"quantity": "transfer_accuracy", "value": 0.5, "n": 50, "seed": 0, "checkpoint": "last"}
    records.append(run_dir, [Record(training="nt", source="at", **where)])
    counts = Record(quantity="sanity_check_warnings", value=0, training="nt", seed=0)
    records.append(run_dir, [counts])
    text = report.build(run_dir).read_text(encoding="utf-8")
    assert "1 seeds" not in text
    assert 'Interval over">\N{EN DASH}<' in text
    (transfer,) = re.findall("<caption>Transfer: (.*?)</caption>", text)
    assert transfer.endswith("brackets are 95 % intervals, Wilson&#x27;s over images, as there is one seed.")
    assert "1 of 1 seed passed" in text


def test_figures_that_are_left_out_are_named(tmp_path):
    where = {"quantity": "i_tx_given_y_upper", "training": "nt", "seed": 0, "layer": "a", "inputs": "clean", "n": 9}
    kde = {"estimator": "kde", "noise_rule": "fixed", "unit": "bits", "image_set": "test", "class_": 0}
    records.append(tmp_path, [Record(value=1.0, epoch=epoch, **where, **kde) for epoch in (1, 2)])
    text = " ".join(Page(report.build(tmp_path).read_text(encoding="utf-8")).text)
    assert "1 more figure: Information within each class; to draw:" in text


def test_the_cells_of_a_sweep_are_not_taken_for_a_run(tmp_path):
    """They are different data sets, and untrained and matched networks are no trainings."""
    rows = [
        Record(quantity=quantity, value=0.5, cell=cell, training=training, seed=seed, epoch=epoch, **where)
        for cell in ("rho_shape=1,rho_texture=1,fine", "rho_shape=2,rho_texture=1,fine")
        for training in ("untrained", "nt", "at-linf", "matched-linf")
        for seed, epoch in ((0, 1), (0, 2), (1, 2))
        for quantity, where in (
            ("accuracy", {"image_set": "test", "inputs": "clean", "checkpoint": "epoch", "n": 50}),
            ("shape_bias", {"image_set": "conflict", "inputs": "clean", "checkpoint": "epoch"}),
            ("i_t_shape", {"image_set": "factorial", "inputs": "clean", "layer": "logits", "estimator": "probe"}),
        )
    ]
    records.append(tmp_path, rows)
    page = Page(report.build(tmp_path).read_text(encoding="utf-8"))
    text = " ".join(page.text)
    assert not {"answers", "claims", "training_curves", "shape_texture_epochs"} & set(page.ids)
    assert "networks trained normally and adversarially (Linf)" in text
    assert "Test accuracy at the end of training, mean over the 2 cells of the sweep; brackets" in text
    assert "(epoch 2, mean over the 2 cells of the sweep)" in text
    screen = io.StringIO()
    Console(width=200, file=screen).print(*terminal.tables_of(tmp_path))
    assert "NT matched to AT (Linf)" in screen.getvalue()
    with pytest.raises(InputError, match=f"Sweeps have no verdicts on the claims; leave out {tmp_path.name}"):
        report.summarise([tmp_path], tmp_path / "all.md")
