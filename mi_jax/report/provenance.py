"""Where a report's numbers come from: one sentence for its head, and the settings folded at its end.

It reads what the run recorded of itself and adds nothing.
"""

import json
from html import escape

from mi_jax.plotting import captions
from mi_jax.records.labels import name_of
from mi_jax.records.run_records import RunRecords


def summary(run_records: RunRecords) -> str:
    """Network, data set, trainings, seeds, epochs; and that the run is unfinished, where its provenance says so."""
    rows = run_records.records
    trained = rows[rows["training"].notna()]
    parts = [
        captions.where(run_records),
        f"trained as {', '.join(name_of(training) for training in run_records.trainings)}"
        if run_records.trainings
        else "",
        _count(trained["seed"].nunique(), "seed"),
        f"epochs 0 to {rows['epoch'].max():g}" if rows["epoch"].notna().any() else "",
        f"commit {str(run_records.provenance['git_commit'])[:10]}" if run_records.provenance.get("git_commit") else "",
    ]
    text = "; ".join(part for part in parts if part) + "."
    if "end" in run_records.provenance and run_records.provenance["end"] is None:
        text += " This run has not finished: the report shows what it has measured so far."
    return text


def folded(run_records: RunRecords) -> str:
    """`config.json` and `provenance.json` as folded, escaped blocks; nothing for a file that is not there."""
    blocks = []
    for title, content in (("Configuration", run_records.config), ("Provenance", run_records.provenance)):
        if content:
            text = escape(json.dumps(content, indent=2, ensure_ascii=False))
            blocks.append(f"<details><summary>{title}</summary><pre>{text}</pre></details>")
    return "".join(blocks)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}" if number else ""
