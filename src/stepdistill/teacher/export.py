"""Annotations beside their inputs, in one file for other tools."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from stepdistill.errors import DataError, MissingExtraError, brief
from stepdistill.files import write_jsonl, writing
from stepdistill.teacher.annotate import Asked
from stepdistill.teacher.annotations import iter_rows

Rows = Iterable[dict[str, Any]]
BATCH = 1024
"""Rows held in memory at a time."""


def export_annotations(annotations: Path, asked: Asked, path: Path) -> None:
    """Write one row an annotated example: id, split, text, gold, and the annotation's own fields.

    Raises:
        DataError: the annotations are not there or malformed.
        MissingExtraError: Parquet, and pyarrow is not installed.
        RunFolderError: the disk is full or not writable.
    """
    FORMATS[path.suffix.lower()](path, _rows(annotations, asked))


def _rows(annotations: Path, asked: Asked) -> Iterator[dict[str, Any]]:
    """Both files are in the order of the examples; they are joined by split and id."""
    found = iter_rows(annotations)
    row = next(found, None)
    for split, example in asked.stream():
        if row is None or (row["split"], row["id"]) != (split, example.id):
            continue
        yield {
            "id": example.id,
            "split": split,
            "text": example.text,
            "gold": example.label,
            "label": row["label"],
            "rationale": row["rationale"],
            "rationales": [text for text in (row["rationale"], *row.get("more", ())) if text],
            "confidence": row.get("confidence"),
            "rule": row["rule"],
            "unread": row["unread"],
            "left_out": row.get("left_out"),
            "hinted": row.get("hinted", False),
            "completion": row.get("completion"),
            "model": row.get("model"),
        }
        row = next(found, None)
    if row is not None:
        what = f"{annotations}: the row of {brief(row['id'])} in '{row['split']}' belongs to no example, or"
        raise DataError(f"{what} stands in another order than the data; run `stepdistill annotate` again")


def _parquet(path: Path, rows: Rows) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f"writing {path}", "data") from None
    text = pyarrow.string()
    kinds = {"rationales": pyarrow.list_(text), "confidence": pyarrow.float64(), "hinted": pyarrow.bool_()}
    names = "id split text gold label rationale rationales confidence rule unread left_out hinted "
    names += "completion model"
    schema = pyarrow.schema([(name, kinds.get(name, text)) for name in names.split()])
    draft = path.with_name(f".{path.name}.tmp")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with pyarrow.parquet.ParquetWriter(draft, schema) as writer:
                source = iter(rows)
                while part := [_writable(row) for row in islice(source, BATCH)]:
                    writer.write_table(pyarrow.Table.from_pylist(part, schema))
            os.replace(draft, path)
        finally:
            draft.unlink(missing_ok=True)


def _writable(row: dict[str, Any]) -> dict[str, Any]:
    """Lone surrogates have no UTF-8; they are spelt out, and the ledger keeps them as they came."""
    return {
        key: [_spelt(part) for part in value] if isinstance(value, list) else _spelt(value)
        for key, value in row.items()
    }


def _spelt(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


FORMATS: dict[str, Callable[[Path, Rows], None]] = {".jsonl": write_jsonl, ".parquet": _parquet}
"""Writers by the ending of the file's name."""
