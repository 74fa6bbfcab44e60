"""What several runs say about the claims, side by side: one page of Markdown and one figure."""

import itertools
import math
import os
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter

from mi_jax.claims import Claim, ClaimStatistic
from mi_jax.errors import InputError
from mi_jax.files import write_text
from mi_jax.plotting import figures, style
from mi_jax.records.labels import DASH, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, read
from mi_jax.report import tables
from mi_jax.report.html_tables import interval, number, value_of
from mi_jax.report.overview import VERDICTS, facts, verdicts_in_words

_AXES = {
    "ratio": "distance over that of seeds (same below √2)",
    "relative": "difference in % of the baseline",
    "points": "percentage points",
    "nats": "nats",
    "score": "mean reciprocal ranks",
    "bits": "bits",
}
_SCALE = {"relative": 100, "points": 100}
_LETTERS = 56
"""Letters in a line of the label of a row."""
_MARKERS = "os^D"
_REFERENCE = {"ratio": math.sqrt(2)}


def write(run_dirs: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str]) -> Path:
    """Writes what was run, the accuracies, and the verdicts of all runs with the statistics behind them.

    A figure of the statistics is written next to the page, as PNG and SVG of the same name.

    Args:
        run_dirs: run directories with different names.
        path: the page, `NAME.md`.

    Returns:
        The path of the page.

    Raises:
        InputError: if no directory is given, one or its records are missing or damaged, two share a name, or the
            page's name does not end in `.md`.
    """
    page = Path(path)
    if page.suffix != ".md":
        raise InputError(f"The summary is Markdown; give a file name that ends in .md, not {page.name}.")
    if not run_dirs:
        raise InputError("No run directory was given; give at least one.")
    found = {run.run_dir.resolve().name: run for run in map(read, run_dirs)}
    if len(found) < len(run_dirs):
        raise InputError("Two of the run directories have the same name; rename one.")
    evaluated = {name: tables.claims(run) for name, run in found.items()}
    if sweeps := [name for name, of_run in evaluated.items() if not of_run]:
        raise InputError(f"Sweeps have no verdicts on the claims; leave out {', '.join(sweeps)}.")
    claims = {name: evaluated[name][compared_trainings(run)[1]] for name, run in found.items()}
    page.parent.mkdir(parents=True, exist_ok=True)
    figures.write(page.stem, lambda: _forest(claims), page.parent)
    write_text(page, "\n\n".join(_sections(found, claims, figure=f"{page.stem}.png")) + "\n")
    return page


def _sections(found: dict[str, RunRecords], claims: dict[str, tuple[Claim, ...]], *, figure: str) -> list[str]:
    described = {name: facts(run) for name, run in found.items()}
    heads = dict.fromkeys(fact for of_run in described.values() for fact in of_run)
    runs = [[fact, *(of_run.get(fact, DASH) for of_run in described.values())] for fact in heads]
    accuracies = [row for name, run in found.items() for row in _accuracies(name, run)]
    verdicts = [
        [
            f"{same[0].number} {' / '.join(_different(claim.name for claim in same))}",
            *(_verdict(claim, found[name]) for name, claim in zip(claims, same, strict=True)),
        ]
        for same in zip(*claims.values(), strict=True)
    ]
    sections = ["# What the runs say about the claims", _table(["claim", *found], verdicts), VERDICTS]
    sections += [
        f"![Statistics behind the verdicts, 95 % intervals]({quote(figure)})",
        "## Runs",
        _table(["", *found], runs),
    ]
    sections += ["## Test accuracy at the end of training, 95 % intervals"]
    sections += [_table(["run", "training", "inputs", "images", "accuracy"], accuracies)]
    sections += ["## Statistics behind the verdicts, 95 % intervals"]
    for same in zip(*claims.values(), strict=True):
        title = " / ".join(_different(claim.text for claim in same))
        methods = _different(claim.method for claim in same)
        sections += [f"### {same[0].number} {title}", *methods, _statistics(list(claims), same)]
    return sections


def _different(texts: Iterable[str]) -> list[str]:
    """Each text once: those of a claim name the trainings, which may be others in another run."""
    return list(dict.fromkeys(texts))


def _accuracies(name: str, run: RunRecords) -> Iterable[list[str]]:
    for row in tables.accuracies(run).itertuples():
        text = f"{number(row.mean, 'share')} {interval(row.low, row.high, 'share')}"
        yield [name, name_of(row.training), row.attack_label, f"{row.n:,.0f}", text]


def _verdict(claim: Claim, run: RunRecords) -> str:
    rules = run.noise_rules
    word = claim.combined(rules) + (" (fragile)" if claim.combined_is_fragile(rules) else "")
    depends = "; ".join(filter(None, [verdicts_in_words(claim, rules), claim.of_images_alone(rules)]))
    return f"**{word}**" + (f": {depends}" if depends else "")


def _statistics(names: list[str], same: Sequence[Claim]) -> str:
    """One row per statistic of a claim, one column per run."""
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for name, claim in zip(names, same, strict=True):
        for one in claim.statistics:
            rule = NOISE_RULE_NAMES[one.noise_rule] if one.noise_rule else DASH
            shown = "" if one.value is None else value_of(one)
            if one.decides:
                shown = ", ".join(filter(None, [shown, one.verdict])) + (f" ({one.remark})" if one.remark else "")
            cells.setdefault((one.name, rule), {})[name] = shown or DASH
    rows = [[*key, *(of_run.get(name, DASH) for name in names)] for key, of_run in cells.items()]
    return _table(["statistic", "noise", *names], rows)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _forest(claims: dict[str, tuple[Claim, ...]]) -> Figure:
    """One panel per claim and unit; every statistic that decides is a row, every run a point with its interval."""
    panels: dict[tuple[str, str], dict[str, dict[str, ClaimStatistic]]] = {}
    of_claim = [zip(claims, same, strict=True) for same in zip(*claims.values(), strict=True)]
    for name, claim in itertools.chain.from_iterable(of_claim):
        for one in (s for s in claim.statistics if s.decides):
            rule = f", {NOISE_RULE_NAMES[one.noise_rule].removesuffix(' noise rule')}" if one.noise_rule else ""
            rows = panels.setdefault((f"{claim.number} {claim.name}", one.unit), {})
            row = rows.setdefault(f"{one.name}{rule}", {})  # without a value, too, it keeps its place in the order
            row |= {name: one} if one.low is not None else {}
    with_values = {panel: {label: row for label, row in rows.items() if row} for panel, rows in panels.items()}
    panels = {panel: rows for panel, rows in with_values.items() if rows}
    if not panels:
        raise InputError(
            "None of the runs has an interval for any claim; add one that compares two trainings, of two seeds or more."
        )
    heights = [0.6 + 0.3 * len(rows) for rows in panels.values()]
    figure = style.new_figure(0.5 + sum(heights))
    axes = style.grid_of(figure, len(panels), 1, height_ratios=heights)[:, 0]
    for panel, ((claim, unit), rows) in zip(axes, panels.items(), strict=True):
        _draw_rows(panel, rows, list(claims), unit)
        panel.set_title(f"{claim}: {_AXES.get(unit, unit)}", loc="left", fontsize=9)
    handles = [
        Line2D([], [], color=colour, marker=marker, label=name)
        for name, (colour, marker) in zip(claims, map(_look, range(len(claims))), strict=True)
    ]
    style.legend_above(figure, handles)
    return figure


def _look(k: int) -> tuple[str, str]:
    """Colour and marker of the k-th run; beyond the colours of the palette, the marker tells runs apart."""
    again, i = divmod(k, len(style.PALETTE))
    return style.PALETTE[i], _MARKERS[again % len(_MARKERS)]


def _draw_rows(panel: Axes, rows: dict[str, dict[str, ClaimStatistic]], names: list[str], unit: str) -> None:
    scale = _SCALE.get(unit, 1)
    for i, of_run in enumerate(rows.values()):
        for name, one in of_run.items():
            k = names.index(name)
            place = i + 0.6 * (k - (len(names) - 1) / 2) / len(names)
            low, high = (np.nan if end is None else scale * end for end in (one.low, one.high))
            colour, marker = _look(k)
            panel.plot([low, high], [place, place], color=colour, linewidth=1.4)
            panel.plot(scale * np.float64(one.value or 0.0), place, marker, color=colour, markersize=4)
    if unit == "ratio":
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter(NullFormatter())
    panel.axvline(_REFERENCE.get(unit, 0.0), color="#222222", linewidth=0.8)
    panel.set_yticks(range(len(rows)), [textwrap.fill(label, _LETTERS) for label in rows], fontsize=8)
    panel.set_ylim(len(rows) - 0.5, -0.5)
