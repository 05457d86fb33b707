"""A bundle: an exported student's folder, and the manifest that says what it is and what its files hash to."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stepdistill.config.strict import Model, check
from stepdistill.errors import RunFolderError
from stepdistill.files import read_object, write_json

MANIFEST = "bundle.json"
CARD = "README.md"
"""The model card; the only file that may be edited after the export."""

Format = Literal["huggingface", "ctranslate2", "onnx", "gguf"]
Readout = Literal["first", "sum", "mean"]
"""How a closed set is scored: by the first token (what follows counts only among labels that share it), by
the sum of the log-probabilities of all tokens, or by their mean."""


class Tokens(Model):
    """Ids that an engine needs and a tokenizer file does not name."""

    eos: int
    pad: int
    start: int | None = None


class File(Model):
    """What a file of the bundle was when it was proven; `size` in bytes."""

    sha256: str
    size: int


class Settings(Model):
    """How answers are made of the model's numbers; chosen on validation, never on test."""

    readout: Readout | None = None
    temperature: float = Field(default=1.0, gt=0)
    threshold: float | None = Field(default=None, ge=0, le=1)


class Bundle(Model):
    """The manifest `bundle.json`. `card` is the student's own card (`student.json`), as training wrote it."""

    version: Literal[1] = 1
    format: Format
    precision: str
    card: Mapping[str, Any]
    tokens: Tokens
    settings: Settings = Settings()
    teacher: Mapping[str, Any] | None = None
    stepdistill: str
    files: Mapping[str, File] = {}


def is_bundle(folder: Path) -> bool:
    """Whether the folder is an export."""
    return (folder / MANIFEST).is_file()


def read_bundle(folder: Path) -> Bundle:
    """The manifest of a bundle whose files are all there and are the ones that were proven.

    Nothing of a file is parsed before its digest was compared: loaders of weights have crashed on, and
    worse, obeyed hostile files.

    Raises:
        ConfigError: the manifest is malformed.
        RunFolderError: a file is missing, was changed or cut, is not named in the manifest, or leads outside.
    """
    bundle = check(Bundle, read_object(folder / MANIFEST), str(folder / MANIFEST))
    there = {name for name in _names(folder) if name not in (MANIFEST, CARD)}
    if strange := sorted(there ^ set(bundle.files)):
        what = "is not of this bundle" if strange[0] in there else "is missing"
        raise RunFolderError(f"{folder / strange[0]}: the file {what}; copy the bundle anew, or export again")
    for name, was in bundle.files.items():
        path = folder / name
        if (
            path.is_symlink()
            or not path.is_file()
            or path.stat().st_size != was.size
            or digest_of(path) != was.sha256
        ):
            raise RunFolderError(
                f"{path}: is not the file that was exported (its SHA-256 or size differs); copy the bundle "
                "anew, or export again"
            )
    return bundle


def seal(folder: Path, bundle: Bundle) -> Bundle:
    """Write the manifest with the digests of all files that lie in the folder, and give it back."""
    names = [name for name in _names(folder) if name not in (MANIFEST, CARD)]
    files = {
        name: File(sha256=digest_of(folder / name), size=(folder / name).stat().st_size) for name in names
    }
    sealed = bundle.model_copy(update={"files": files})
    write_json(folder / MANIFEST, sealed.model_dump(mode="json"))
    return sealed


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
