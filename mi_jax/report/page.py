"""The report page: answers, what was run, claims, accuracies, figures, glossary and settings in one file."""

import base64
import os
from html import escape
from pathlib import Path

from mi_jax.claims import Claim
from mi_jax.files import write_text
from mi_jax.records.labels import counted, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, read
from mi_jax.report import figures, html_tables, overview, tables
from mi_jax.report.figures import FigureSpec
from mi_jax.report.page_style import CSS

_NAME = "report.html"
_SECTIONS = {
    "answers": "Answers",
    "setup": "What was run",
    "claims": "Claims",
    "numbers": "Accuracy",
    "figures": "Figures",
    "glossary": "Glossary",
    "record": "Settings and failed estimates",
}


def build(run_dir: str | os.PathLike[str], *, every_figure: bool = False) -> Path:
    """Makes the report of a run from its records: `report.html`, `figures/*.png`, `figures/*.svg` and `tables/*.csv`.

    The page needs no other file. The same records give the same page, also while the run continues.

    Args:
        run_dir: the run directory.
        every_figure: whether to draw the minor figures too, which are folded away on the page.

    Returns:
        The path of the page.

    Raises:
        InputError: if the directory or its records are missing, empty or corrupt.
    """
    run_records = read(run_dir)
    directory = run_records.run_dir / "figures"
    directory.mkdir(exist_ok=True)
    wanted, remarks = _chosen(run_records, every_figure=every_figure)
    drawn = [(spec, figures.save(spec, run_records, directory)) for spec in wanted]
    found = tables.claims(run_records)
    csv = tables.write_csv(run_records, found, run_records.run_dir / "tables")
    path = run_records.run_dir / _NAME
    write_text(path, _page(run_records, found, drawn, remarks, csv))
    return path


def _chosen(run_records: RunRecords, *, every_figure: bool) -> tuple[list[FigureSpec], list[str]]:
    """The figures to draw, and sentences about those that are left out, as HTML."""
    available = figures.available(run_records)
    reasons = {spec.name: spec.uninformative(run_records) for spec in available}
    worth = [spec for spec in available if not reasons[spec.name]]
    wanted = [spec for spec in worth if every_figure or not spec.minor(run_records)]
    remarks = [escape(reason) for reason in reasons.values() if reason]
    if others := [spec.title for spec in worth if spec not in wanted]:
        command = "<code>python experiments/report.py RUN_DIR --every-figure</code>"
        more = counted(len(others), "more figure")
        remarks.append(f"{more}: {escape('; '.join(others))}; to draw: {command}")
    return wanted, remarks


def _page(
    run_records: RunRecords,
    found: dict[str, tuple[Claim, ...]],
    drawn: list[tuple[FigureSpec, Path]],
    remarks: list[str],
    csv: dict[str, Path],
) -> str:
    title = overview.title(run_records)
    contents = {
        "answers": overview.answers(run_records, found[compared_trainings(run_records)[1]]) if found else "",
        "setup": overview.what_was_run(run_records),
        "claims": _claims(run_records, found, {spec.name: spec.title for spec, _ in drawn}) + _download(csv, "claims"),
        "numbers": html_tables.headline(run_records)
        + _download(csv, "accuracy")
        + html_tables.sanity_checks(run_records)
        + html_tables.transfers(run_records)
        + _download(csv, "transfer"),
        "figures": _figures(run_records, drawn, remarks),
        "glossary": overview.glossary(),
        "record": html_tables.failures(run_records) + _download(csv, "failed") + overview.settings(run_records),
    }
    sections = {name: text for name, text in _SECTIONS.items() if contents[name]}
    body = "".join(
        f'<section id="{name}"><h2>{escape(text)}</h2>{contents[name]}</section>' for name, text in sections.items()
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header><h1>{escape(title)}</h1><p>{escape(overview.subtitle(run_records))}</p></header>"
        f"{overview.contents(sections)}{body}</main></body></html>\n"
    )


def _claims(run_records: RunRecords, found: dict[str, tuple[Claim, ...]], shown: dict[str, str]) -> str:
    if not found:
        return ""
    baseline, treated = compared_trainings(run_records)
    noise = html_tables.noise_rules_in_words(run_records, (baseline, treated))
    parts = [
        html_tables.claims(run_records, found[treated], shown, (baseline, treated)),
        f'<p class="small">{escape(noise)}</p>',
    ]
    for training, claims in found.items():
        if training != treated:
            table = html_tables.claims(run_records, claims, shown, (baseline, training))
            parts.append(_folded(f"The same claims for {name_of(training)}", table))
    return "".join(parts)


def _figures(run_records: RunRecords, drawn: list[tuple[FigureSpec, Path]], remarks: list[str]) -> str:
    main = [_figure(spec, path, run_records) for spec, path in drawn if not spec.minor(run_records)]
    minor = [_figure(spec, path, run_records) for spec, path in drawn if spec.minor(run_records)]
    files = '<p class="small">Every figure is also in the run directory: figures/*.png, figures/*.svg.</p>'
    return "".join(
        [
            *main,
            _folded(f"More figures ({len(minor)})", "".join(minor)) if minor else "",
            *(f'<p class="small">{remark}</p>' for remark in remarks),
            files if drawn else "",
        ]
    )


def _figure(spec: FigureSpec, path: Path, run_records: RunRecords) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return (
        f'<figure id="{escape(spec.name)}"><h3>{escape(spec.title)}</h3>'
        f'<div class="scroll"><img alt="{escape(spec.alt)}" src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escape(spec.caption(run_records))}</figcaption></figure>"
    )


def _download(csv: dict[str, Path], name: str) -> str:
    """A link to a table as CSV, which the page carries itself; nothing for a table without rows."""
    if name not in csv:
        return ""
    data = base64.b64encode(csv[name].read_bytes()).decode("ascii")
    return (
        f'<p class="small"><a download="{name}.csv" href="data:text/csv;base64,{data}">This table as CSV</a> '
        f"(tables/{name}.csv)</p>"
    )


def _folded(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
