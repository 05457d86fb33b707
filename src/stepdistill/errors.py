"""What can go wrong, as one tree; each message says what was given, what is allowed and what to do.

    StepdistillError
     ├── ConfigError        a run file or task file: unknown key, wrong value, unknown name
     ├── DataError          the data: no such file, malformed line, missing column, duplicate id
     ├── TeacherError       the teacher: its completions do not fit the examples, or it does not answer
     │    ├── LedgerError   the file of answers: damaged, not writable, another program's
     │    └── BudgetError   the next answer could cost more than `annotate.max_cost_usd` leaves (exit code 3)
     ├── StudentError       the student: cannot be loaded, wrong kind of model, loss not finite
     ├── RunFolderError     the output folder: another run's, in use, no space, not writable
     └── MissingExtraError  an optional dependency that this work needs is not installed

The command line prints the message in one line and exits with the class's `exit_code`; a traceback is a
defect of ours.
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator

EXTRAS = {
    **dict.fromkeys(["torch", "transformers", "accelerate", "safetensors"], "train"),
    **dict.fromkeys(["scipy", "sklearn", "psutil", "pyarrow", "matplotlib"], "train"),
    "ctranslate2": "ctranslate2",
    **dict.fromkeys(["fastapi", "uvicorn", "prometheus_client"], "serve"),
    **dict.fromkeys(["onnx", "onnxruntime", "onnxscript"], "onnx"),
    **dict.fromkeys(["gguf", "xllamacpp"], "gguf"),
}
"""Packages that the core does without, and the extra that brings each."""


class StepdistillError(Exception):
    """Root of all errors that a user can cause and mend."""

    exit_code = 2


class ConfigError(StepdistillError):
    """A run file or task file says something that is not allowed."""


class DataError(StepdistillError):
    """A data file cannot be read as the task says."""


class TeacherError(StepdistillError):
    """The teacher's completions are missing or do not fit the examples, or the teacher does not answer."""


class LedgerError(TeacherError):
    """The ledger cannot be used: damaged, not writable, or not a ledger."""


class BudgetError(TeacherError):
    """The next answer could cost more than is left of the budget."""

    exit_code = 3


class StudentError(StepdistillError):
    """The student cannot be loaded, or cannot be trained as asked."""


class RunFolderError(StepdistillError):
    """The output folder cannot be used."""


class MissingExtraError(StepdistillError):
    """An optional dependency is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs an optional package; install it: pip install 'stepdistill[{extra}]'")


@contextlib.contextmanager
def extras_named() -> Iterator[None]:
    """Turn the import of a package that is not installed into one line that names the extra with it.

    Raises:
        MissingExtraError: in place of a `ModuleNotFoundError` for one of `EXTRAS`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        raise MissingExtraError(f"importing {error.name}", EXTRAS[error.name]) from None


def unknown(noun: str, given: object, allowed: Iterable[str]) -> str:
    """Say that a name is not known, what was probably meant, and what there is.

    >>> unknown("method", "fintune", ["finetune", "distill"])
    "unknown method 'fintune'; did you mean 'finetune'? Allowed: distill, finetune"
    >>> unknown("method", "zzz", ["finetune"])
    "unknown method 'zzz'. Allowed: finetune"
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(str(given), names, n=1, cutoff=0.5)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown {noun} {brief(str(given))}{hint} Allowed: {', '.join(names)}"


def brief(value: object, limit: int = 60) -> str:
    """Quote a value for a one-line message, shortened and without line breaks.

    >>> brief("a long text", 8)
    "'a long…"
    """
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
