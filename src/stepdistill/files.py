"""The only module that writes run files: whole or not at all, and never over another run's."""

from __future__ import annotations

import codecs
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from stepdistill.errors import DataError, RunFolderError, brief

_FATAL = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.EROFS: "the file system is read-only",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EFBIG: "the file size limit is reached",
}
_FULL = ("No space left on device", "PytorchStreamWriter failed", "inline_container.cc")
"""How safetensors and torch say that the disk is full."""
_REMEDY = "make room or use another folder, then run the same command again: finished work is kept"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line that names path and remedy.

    Raises:
        RunFolderError: no space, no permission, read-only file system.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in _FATAL:
            raise
        raise RunFolderError(f"{path}: {_FATAL[error.errno]}; {_REMEDY}") from None
    except Exception as error:
        # safetensors and torch wrap the cause in types of their own and keep only its words.
        if not any(words in str(error) for words in _FULL):
            raise
        raise RunFolderError(f"{path}: {_FATAL[errno.ENOSPC]}; {_REMEDY}") from None


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` (UTF-8) in one step; a crash leaves the old file or the new one."""
    with replacing(path) as file:
        file.write(text)


@contextlib.contextmanager
def replacing(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A file beside `path` that takes its place, in one step, once it is written and on the disk."""
    form: dict[str, Any] = {} if binary else {"encoding": "utf-8", "errors": "surrogatepass"}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(".tmp", f".{path.name}.", path.parent)
        try:
            with os.fdopen(handle, "wb" if binary else "w", **form) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON with sorted keys, in one step."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, in one step; only one row at a time is held in memory."""
    with replacing(path) as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an operating system's refusal to read into one line that names the path.

    Raises:
        DataError: there is no such file, or it cannot be read.
    """
    try:
        yield
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None


def read_text(path: Path) -> str:
    """Read a UTF-8 file (a byte order mark is dropped).

    Raises:
        DataError: there is no such file, or it is not UTF-8.
    """
    try:
        with reading(path):
            return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _not_utf8(path, error.start) from None


def iter_lines(path: Path, newline: str = "\n") -> Iterator[str]:
    """Lines of a UTF-8 file with their ends, one at a time (a byte order mark is dropped).

    `newline` is that of `open`: lines end at "\\n" alone, or for "" at any line end; none is translated.
    Raises DataError as `read_text`; lines before what is not UTF-8 have been given.
    """
    try:
        with reading(path), path.open(encoding="utf-8-sig", newline=newline) as file:
            yield from file
    except UnicodeDecodeError:
        raise _not_utf8(path, _wrong_byte(path)) from None


def iter_jsonl(path: Path) -> Iterator[dict[str, Any]]:
    """Read one JSON object a line, one at a time; empty lines are passed over.

    Raises:
        DataError: a line is not a JSON object (the message has its number).
    """
    with reading(path), path.open("rb") as file:
        yield from (row for _, row in iter_placed(file, path))


def iter_placed(file: IO[bytes], path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """As `iter_jsonl`, of a file that is open: each object with the byte at which its line begins."""
    place = 0
    # Lines end at "\n" alone: U+2028 and others may stand raw in a JSON string.
    for number, raw in enumerate(file, start=1):
        mark = codecs.BOM_UTF8 if number == 1 and raw.startswith(codecs.BOM_UTF8) else b""
        place += len(mark)
        try:
            line = raw[len(mark) :].decode("utf-8").removesuffix("\n")
        except UnicodeDecodeError as error:
            raise _not_utf8(path, place + error.start) from None
        if line.strip():
            yield place, parse_object(line, f"{path}:{number}")
        place += len(raw) - len(mark)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file is.

    Raises:
        DataError: there is none, or it is damaged.
    """
    return parse_object(read_text(path), f"{path} (delete it and start again)")


def parse_object(line: str, place: str) -> dict[str, Any]:
    """The JSON object of one line; `place` says in messages where it stands.

    Raises:
        DataError: it is not one.
    """
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        what = getattr(error, "msg", "nested too deeply")
        raise DataError(f"{place}: malformed JSON ({what}): {brief(line)}") from None
    if not isinstance(row, dict):
        raise DataError(f"{place}: a JSON object per line is expected, not {brief(line)}")
    return row


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """All that `iter_jsonl` gives, as a list."""
    return list(iter_jsonl(path))


def replace_rows(path: Path, name: str, rows: Iterable[Mapping[str, Any]], order: Sequence[str]) -> None:
    """Put `rows` in the place of those whose `name` is `name`; names stand in the given order.

    The order does not depend on which rows came first, so an interrupted run ends with the same file.
    """
    kept = [row for row in (read_jsonl(path) if path.exists() else []) if row["name"] != name]
    write_jsonl(path, sorted([*kept, *rows], key=lambda row: order.index(row["name"])))


def digest(*parts: str | bytes) -> str:
    """First 16 hex digits of the SHA-256 over the parts; their boundaries count.

    >>> digest("ab", "c") == digest("a", "bc")
    False
    """
    return digest_all(parts)


def digest_all(parts: Iterable[str | bytes]) -> str:
    """The `digest` of parts that are given one at a time."""
    total = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        total.update(len(raw).to_bytes(8, "big") + raw)
    return total.hexdigest()[:16]


def digest_file(path: Path) -> str:
    """First 16 hex digits of the SHA-256 over a file's bytes, read in pieces."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            total.update(piece)
    return total.hexdigest()[:16]


def publish(draft: Path, final: Path) -> None:
    """Rename a finished folder to its final name after all its files have reached the disk.

    A folder that has the name already is replaced.
    """
    with writing(final):
        for path in draft.rglob("*"):
            if path.is_file():
                sync_folder(path)
        if final.exists():
            shutil.rmtree(final)
        os.rename(draft, final)
        sync_folder(final.parent)


def need_space(folder: Path, size: int, purpose: str) -> None:
    """Refuse before the work, not after it, where the disk cannot hold the result.

    Raises:
        RunFolderError: fewer than `size` bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < size:
        raise RunFolderError(
            f"{folder}: {purpose} needs about {size / 1e6:,.0f} MB of disk space and "
            f"{free / 1e6:,.0f} MB are free; make room or choose another `out`"
        )


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; the lock ends with the process, however it ends.

    Raises:
        RunFolderError: another process works in the folder.
    """
    path = folder / ".lock"
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        handle = path.open("a")
    with handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunFolderError(
                f"{folder}: another stepdistill process works in this folder; wait for it, or "
                "choose another `out`"
            ) from None
        yield


def _not_utf8(path: Path, place: int) -> DataError:
    return DataError(
        f"{path}: not UTF-8 (byte {place}); convert it, for example with: iconv -f latin1 -t utf-8"
    )


def _wrong_byte(path: Path) -> int:
    """Place of the first byte that is not UTF-8; a decoder of pieces knows its place in the piece only."""
    place = 0
    with path.open("rb") as file:
        for line in file:
            try:
                place += len(line.decode("utf-8").encode("utf-8"))
            except UnicodeDecodeError as error:
                return place + error.start
    return place


def sync_folder(path: Path) -> None:
    """Have the names of a folder's files, or the bytes of a file, reach the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
