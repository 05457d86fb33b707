"""Rows out of files: JSONL, JSON, CSV, TSV, Parquet, XML, a `datasets` folder, the hub, a generator."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stepdistill.errors import DataError, MissingExtraError, brief, unknown
from stepdistill.files import iter_jsonl, iter_lines, read_text
from stepdistill.task import claims
from stepdistill.task.schema import GeneratorSpec, HubSpec, Split

Row = dict[str, Any]
ENVIRONMENT = "STEPDISTILL_DATA"
"""Environment variable with the folder of the data, where `data.root` is not given."""

csv.field_size_limit(1 << 27)  # a cell may be a whole document
BATCH = 1024
"""Rows of a Parquet file that are held at once."""
BUFFER = 1 << 18
"""Bytes of each column of a Parquet file that are read at once."""


def iter_rows(path: Path) -> Iterator[Row]:
    """Rows of one file or of a folder saved by `datasets`; the name's ending says the format.

    They are read as they are taken: JSON lines and tables a row at a time, Parquet and `datasets` in
    small batches; a JSON list and XML are read whole.

    Raises:
        DataError: no such file, unknown format, malformed content, or no row in it.
    """
    if path.is_dir():
        rows = _read_folder(path)
    else:
        reader = FORMATS.get(path.suffix.lower())
        if reader is None:
            raise DataError(f"{path}: " + unknown("file format", path.suffix or path.name, FORMATS))
        rows = reader(path)
    empty = True
    for row in rows:
        empty = False
        yield row
    if empty:
        raise DataError(f"{path}: the file is empty; at least one row is expected")


def _read_json(path: Path) -> Iterable[Row]:
    """A JSON list of objects, or JSON lines under the name `.json`, as many data sets are published."""
    first = next((line for line in iter_lines(path) if line.strip()), "")
    if not first.lstrip().startswith("["):
        return iter_jsonl(path)
    try:
        rows = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: malformed JSON ({error.msg})") from None
    except ValueError as error:
        raise DataError(f"{path}: malformed JSON ({error})") from None
    except RecursionError:
        raise DataError(f"{path}: malformed JSON (nested too deeply)") from None
    for number, row in enumerate(rows):
        if not isinstance(row, dict):
            raise DataError(f"{path}: item {number} is {brief(row)}; a JSON object is expected")
    return rows  # type: ignore[no-any-return]


def _read_table(delimiter: str) -> Callable[[Path], Iterable[Row]]:
    def read(path: Path) -> Iterator[Row]:
        reader = csv.reader(iter_lines(path, newline=""), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            for name in header:
                if header.count(name) > 1:
                    raise DataError(f"{path}:1: the column {brief(name)} stands there twice; rename one")
            for cells in reader:
                if not cells:
                    continue
                if len(cells) != len(header):
                    raise DataError(
                        f"{path}:{reader.line_num}: {len(cells)} columns, the header has {len(header)}"
                    )
                yield dict(zip(header, cells, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}:{reader.line_num}: malformed table ({error})") from None

    return read


def _read_parquet(path: Path) -> Iterator[Row]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f"reading {path}", "data") from None
    if not path.exists():
        raise DataError(f"{path}: no such file; check the path")
    try:
        # Buffered: otherwise a whole row group, often a million rows, is held at once.
        with pyarrow.parquet.ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            for batch in file.iter_batches(BATCH, use_threads=False):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None


def _read_xml(path: Path) -> Iterable[Row]:
    """ASDiv's form: every element that has an ID is a row of its attributes and children's texts."""
    text = read_text(path)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise DataError(f"{path}: XML with a document type is refused (entities can explode)")
    try:
        root = ElementTree.fromstring(text)  # noqa: S314 - entities are refused above
    except ElementTree.ParseError as error:
        raise DataError(f"{path}:{error.position[0]}: malformed XML ({error})") from None
    return [
        {**element.attrib, **{child.tag: (child.text or "").strip() for child in element}}
        for element in root.iter()
        if "ID" in element.attrib
    ]


FORMATS: dict[str, Callable[[Path], Iterable[Row]]] = {
    ".jsonl": iter_jsonl,
    ".json": _read_json,
    ".csv": _read_table(","),
    ".tsv": _read_table("\t"),
    ".parquet": _read_parquet,
    ".xml": _read_xml,
}
"""Readers by the ending of the file's name."""


def _read_folder(path: Path) -> Iterable[Row]:
    datasets = _datasets(f"reading the folder {path}")
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not a folder saved by `datasets` ({_first_line(error)})") from None
    if isinstance(found, datasets.DatasetDict):
        splits = ", ".join(found)
        raise DataError(f"{path}: holds the splits {splits}; name one, such as {path}/{next(iter(found))}")
    return found  # type: ignore[no-any-return]


def open_hub(hub: HubSpec, split: Split) -> Iterable[Row]:
    """Rows of one split of a data set on the Hugging Face hub (or of a local folder of that form).

    They lie in memory-mapped files, so they can be gone through any number of times.

    Raises:
        DataError: the data set cannot be reached or has no such split.
        MissingExtraError: `datasets` is not installed.
    """
    datasets = _datasets(f"reading {hub.id} from the hub")
    try:
        found = datasets.load_dataset(hub.id, hub.config, split=hub.splits[split], revision=hub.revision)
    except Exception as error:  # noqa: BLE001 - datasets raises whatever its transports raise
        raise DataError(
            f"{hub.id} (split {hub.splits[split]}): cannot be loaded ({_first_line(error)}); check "
            "the network, or download the files and give their folder as data.root"
        ) from None
    return found  # type: ignore[no-any-return]


def generate(spec: GeneratorSpec, split: Split) -> list[Row]:
    """Rows of one split out of a generator; the splits share no letter."""
    start = 0
    for name, size in spec.sizes.items():
        if name == split:
            made = claims.letters(start + size, spec.seed)[start:]
            return [{"letter": letter.text, "decision": letter.label} for letter in made]
        start += size
    raise DataError(f"the generator {spec.name} has no split '{split}'")


def column(row: Mapping[str, Any], path: str) -> Any:
    """Value of a column; a dotted name reaches into nested columns, as `choices.text` on the hub.

    Raises:
        KeyError: there is no such column.
    """
    if path in row:
        return row[path]
    here: Any = row
    for part in path.split("."):
        if not isinstance(here, Mapping) or part not in here:
            raise KeyError(path)
        here = here[part]
    return here


def _datasets(what: str) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(what, "data") from None
    return datasets


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def find_file(root: Path, task: str, name: str) -> Path:
    """A data file under the root, or under the folder of the task in it.

    Raises:
        DataError: it is in neither place.
    """
    places = [root / name, root / task / name]
    for path in places:
        if path.exists():
            return path
    raise DataError(
        f"{places[0]}: no such file (nor {places[1]}); give the folder that holds {name} as "
        f"data.root or in {ENVIRONMENT}"
    )
