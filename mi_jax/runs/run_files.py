"""What the files of a run directory say, read without opening it for writing: its configuration and progress."""

import json
from pathlib import Path
from typing import Any

from mi_jax import records
from mi_jax.errors import InputError
from mi_jax.files import json_digest, write_json

CONFIG, PROVENANCE, PROGRESS = "config.json", "provenance.json", "progress.json"


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        InputError: when the file is missing, cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path} is missing: {path.parent} is not a run directory.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:  # no JSON, not UTF-8, or a number of too many digits
        raise InputError(f"{path} is damaged ({error}); restore it, or choose another directory.") from None


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where it is missing or damaged."""
    try:
        found = read_json(path)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def saved_config(path: Path) -> Any:
    """What `config.json` of a directory holds or, where that is damaged, its copy in `progress.json`.

    Raises:
        InputError: when the directory is not a run's, or there is no intact copy.
    """
    try:
        found = read_json(path / CONFIG)
        if not isinstance(found, dict):
            raise InputError(f"{path / CONFIG} is damaged (not an object); restore it, or choose another directory.")
        return found
    except InputError:
        progress = read_progress(path)
        if progress is None or "config" not in progress:
            raise
        return progress["config"]


def read_progress(path: Path) -> dict[str, Any] | None:
    """The content of `progress.json`; None where it is missing or does not match its digest."""
    try:
        found = read_json(path / PROGRESS)
    except InputError:
        return None
    if not isinstance(found, dict):
        return None
    digest = found.pop("sha256", None)
    if digest != json_digest(found) and not (digest is None and set(found) == {"completed", "records_bytes"}):
        return None
    return found


def completed_stages(path: Path) -> list[str] | None:
    """The stages that `progress.json` counts as completed; None where it is missing or damaged."""
    progress = read_progress(path)
    return None if progress is None else progress["completed"]


def records_bytes(path: Path) -> int | None:
    """The length of the records of completed stages; None where `progress.json` does not say."""
    progress = read_progress(path)
    return None if progress is None else progress["records_bytes"]


def check_records(path: Path) -> None:
    """Rejects a directory whose records are shorter than those of its completed stages were.

    Raises:
        InputError: when they are, or are damaged.
    """
    records.check_length(path, records_bytes(path) or 0)


def set_records_bytes(path: Path, length: int) -> None:
    """Notes another length, where there is an intact `progress.json`, for records that were written again."""
    progress = read_progress(path)
    if progress is not None:
        write_progress(path, {**progress, "records_bytes": length})


def write_progress(path: Path, progress: dict[str, Any]) -> None:
    """Replaces `progress.json`, with a digest of its content."""
    write_json(path / PROGRESS, {**progress, "sha256": json_digest(progress)})
