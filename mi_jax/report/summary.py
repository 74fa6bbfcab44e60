"""The outcome of a run for a terminal: accuracies and verdicts as one table. The page says the same at length."""

import os

from rich.console import Group
from rich.table import Table

from mi_jax.report import claims
from mi_jax.report.evidence import Evidence, read
from mi_jax.report.figures.training import accuracies
from mi_jax.report.names import name_of
from mi_jax.report.tables import interval, number


def table(run_dir: str | os.PathLike[str]) -> Group:
    """Test accuracy at the end by training and attack, and the verdict on each claim.

    Raises:
        InputError: where the directory or its records are missing or corrupt.
    """
    evidence = read(run_dir)
    return Group(_accuracies(evidence), _claims(evidence))


def _accuracies(evidence: Evidence) -> Table:
    found = accuracies(evidence)
    shown = Table(title="Test accuracy at the end of training, 95 % interval", title_justify="left")
    shown.add_column("training")
    attacks = list(found["attack"].unique())
    for attack in attacks:
        shown.add_column(attack, justify="right")
    for training in evidence.trainings:
        mine = found[found["training"] == training].set_index("attack")
        cells = [
            f"{number(row['mean'], 'share')} {interval(row['low'], row['high'], 'share')}"
            for row in (mine.loc[attack] for attack in attacks if attack in mine.index)
        ]
        shown.add_row(name_of(training), *cells)
    return shown


def _claims(evidence: Evidence) -> Table:
    shown = Table(title="Claims of the study", title_justify="left")
    for column in ("claim", "fixed noise", "scale-free noise"):
        shown.add_column(column)
    for claim in claims.evaluate(evidence):
        shown.add_row(claim.text, claim.verdict("fixed"), claim.verdict("trace"))
    return shown
