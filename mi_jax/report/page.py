"""The report page: claims first, then the headline numbers, the figures, and how it all came about.

It arranges what claims and figures give; every text is escaped and nothing outside the file is referred to.
"""

import base64
import os
from html import escape
from pathlib import Path

from mi_jax.files import write_text
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, read
from mi_jax.report import figures, html_tables, provenance
from mi_jax.report.figures import FigureSpec
from mi_jax.report.page_style import CSS

_NAME = "report.html"


def build(run_dir: str | os.PathLike[str], *, every_figure: bool = False) -> Path:
    """Makes `figures/*.png` and the self-contained `report.html` of a run from its records; returns the page's path.

    Minor figures, folded away at the end of the page, are drawn only if `every_figure` is asked for. The same records
    give the same figures, also while the run still goes on. Raises InputError if the directory or its records are
    missing, empty or corrupt.
    """
    run_records = read(run_dir)
    directory = run_records.run_dir / "figures"
    directory.mkdir(exist_ok=True)
    wanted = [spec for spec in figures.available(run_records) if every_figure or not spec.minor(run_records)]
    drawn = [(spec, figures.save(spec, run_records, directory)) for spec in wanted]
    path = run_records.run_dir / _NAME
    write_text(path, _page(run_records, drawn))
    return path


def _page(run_records: RunRecords, drawn: list[tuple[FigureSpec, Path]]) -> str:
    title = run_records.run_dir.resolve().name
    shown = {spec.name: spec.title for spec, _ in drawn}
    main = [_figure(spec, path, run_records) for spec, path in drawn if not spec.minor(run_records)]
    minor = [_figure(spec, path, run_records) for spec, path in drawn if spec.minor(run_records)]
    left_out = len(figures.available(run_records)) - len(drawn)
    parts = [
        f"<header><h1>{escape(title)}</h1><p>{escape(provenance.summary(run_records))}</p></header>",
        _claims(run_records, shown),
        f'<section id="numbers"><h2>Accuracy</h2>{html_tables.headline(run_records)}{html_tables.self_checks(run_records)}'
        f"{html_tables.transfers(run_records)}</section>",
        f'<section id="figures"><h2>Figures</h2>{"".join(main)}</section>' if main else "",
        _folded(f"More figures ({len(minor)})", "".join(minor)) if minor else "",
        _left_out(left_out) if left_out else "",
        '<section id="record"><h2>How this was made</h2>',
        html_tables.failures(run_records),
        provenance.folded(run_records),
        "</section>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: report</title><style>{CSS}</style></head>"
        f"<body><main>{''.join(parts)}</main></body></html>\n"
    )


def _claims(run_records: RunRecords, shown: dict[str, str]) -> str:
    baseline, first = compared_trainings(run_records)
    more = [training for training in run_records.trainings if training not in (baseline, first)]
    parts = [
        '<section id="claims"><h2>Claims</h2>',
        html_tables.claims(run_records, shown, baseline, first),
        f'<p class="small">{escape(html_tables.noise_rules_in_words(run_records, (baseline, first)))}</p>',
    ]
    for training in more:
        table = html_tables.claims(run_records, shown, baseline, training)
        parts.append(_folded(f"The same claims for {name_of(training)}", table))
    return "".join([*parts, "</section>"])


def _figure(spec: FigureSpec, path: Path, run_records: RunRecords) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure id="{escape(spec.name)}"><h3>{escape(spec.title)}</h3>'
        f'<div class="scroll"><img alt="{escape(spec.alt)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(spec.caption(run_records))}</figcaption></figure>"
    )


def _left_out(count: int) -> str:
    command = "python experiments/report.py RUN_DIR --every-figure"
    return f'<p class="small">{count} more figures, of further noise rules and binning: <code>{command}</code></p>'


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
