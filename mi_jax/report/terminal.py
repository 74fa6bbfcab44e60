"""The result of a run for a terminal: accuracies and verdicts, as tables or, where these do not fit, as lists."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mi_jax.claims import Claim
from mi_jax.records.labels import DASH, MINUS, NOISE_RULE_NAMES, name_of
from mi_jax.records.run_records import RunRecords, compared_trainings, read
from mi_jax.report import tables
from mi_jax.report.html_tables import interval, number, value_of

_ASCII = str.maketrans({MINUS: "-", DASH: "-", "\N{GREEK SMALL LETTER RHO}": "r", "\N{SQUARE ROOT}": "sqrt"})


@dataclass(frozen=True)
class _Grid:
    """A titled table of texts, one line of cells per row; `heads` name the columns."""

    title: str
    heads: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Results:
    """What rich prints of a run's records; fits the width and the encoding of the console."""

    run_records: RunRecords

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        def encodable(text: str) -> str:
            try:
                text.encode(options.encoding)
            except UnicodeEncodeError:
                return text.translate(_ASCII).encode(options.encoding, "replace").decode(options.encoding)
            return text

        for grid in (_accuracies(self.run_records), _claims(self.run_records)):
            table = _as_table(grid, encodable)
            fits = Measurement.get(console, options.update(max_width=10_000), table).minimum <= options.max_width
            yield from [table] if fits else _as_list(grid, encodable)


def table(run_dir: str | os.PathLike[str]) -> Results:
    """Test accuracy at the end by training and attack, and the verdict on each claim.

    Raises:
        InputError: where the directory or its records are missing or corrupt.
    """
    return Results(read(run_dir))


def _as_table(grid: _Grid, encodable: Callable[[str], str]) -> Table:
    shown = Table(title=encodable(grid.title), title_justify="left", show_lines=True)
    for head in grid.heads:
        shown.add_column(encodable(head), overflow="fold")
    for row in grid.rows:
        shown.add_row(*map(encodable, row))
    return shown


def _as_list(grid: _Grid, encodable: Callable[[str], str]) -> list[Text | Padding]:
    """The rows below one another: the first cell, then the others with the names of their columns."""
    shown: list[Text | Padding] = [Text(encodable(grid.title), style="italic", overflow="fold")]
    for first, *others in grid.rows:
        shown.append(Text(encodable(first), style="bold", overflow="fold"))
        for head, cell in zip(grid.heads[1:], others, strict=True):
            shown.append(Padding(Text(encodable(f"{head}: {cell}"), overflow="fold"), (0, 0, 0, 2)))
    return shown


def _accuracies(run_records: RunRecords) -> _Grid:
    found = tables.accuracies(run_records)
    conditions = list(found["attack_label"].unique()) if len(found) else []
    rows = []
    for training in run_records.trainings if conditions else ():
        mine = found[found["training"] == training].set_index("attack_label")
        cells = [
            f"{number(mine.at[c, 'mean'], 'share')} {interval(mine.at[c, 'low'], mine.at[c, 'high'], 'share')}"
            if c in mine.index
            else DASH
            for c in conditions
        ]
        rows.append([name_of(training), *cells])
    return _Grid("Test accuracy at the end of training, 95 % interval", ["training", *conditions], rows)


def _claims(run_records: RunRecords) -> _Grid:
    """One row per claim; under each noise rule the verdict and the statistic that settles it."""
    baseline, treated = compared_trainings(run_records)
    rules = run_records.noise_rules
    rows = []
    for claim in tables.claims(run_records)[treated]:
        cells = [_verdict(claim, rule) for rule in rules]
        if not claim.needs_noise:
            cells[1:] = [DASH] * (len(cells) - 1)
        combined = _word(claim.combined(rules), fragile=claim.combined_is_fragile(rules))
        if alone := claim.of_images_alone(rules):
            combined += f"\n{alone}"
        rows.append([f"{claim.number} {claim.name}", combined, *cells])
    heads = ["claim", "verdict", *(NOISE_RULE_NAMES[rule] for rule in rules)]
    return _Grid(f"Claims of the study, {name_of(treated)} against {name_of(baseline)}", heads, rows)


def _word(verdict: str, *, fragile: bool) -> str:
    return f"{verdict} (fragile)" if fragile else verdict


def _verdict(claim: Claim, noise_rule: str) -> str:
    weakest = claim.weakest(noise_rule)
    verdict = _word(claim.verdict(noise_rule), fragile=claim.fragile(noise_rule))
    if weakest is None:
        return verdict
    if weakest.value is None:
        return f"{verdict}\n{weakest.remark}"
    return f"{verdict}\n{value_of(weakest)}" + (f"\n{weakest.remark}" if weakest.low is None else "")
