"""Whether the process that holds a claim still lives, without clocks or process numbers."""

from __future__ import annotations

import contextlib
import fcntl
import re
import secrets
from pathlib import Path

from stepdistill.files import writing


class Owner:
    """This process's name in a ledger: a file that is locked for as long as the process lives.

    The system drops the lock however the process ends; a heartbeat would mistake a sleeping laptop
    for a dead process, and a process number is given again after a restart.
    """

    def __init__(self, ledger: Path) -> None:
        folder = _folder(ledger)
        with writing(folder):
            while not self._enter(folder):
                pass
        _tidy(folder)

    def _enter(self, folder: Path) -> bool:
        """Make and lock the file; False where another process tidied it away in between."""
        self.name = secrets.token_hex(8)
        self._path = folder / self.name
        with contextlib.suppress(FileExistsError):  # `exist_ok` fails where another removes it meanwhile
            folder.mkdir()
        try:
            self._file = self._path.open("xb")
        except FileNotFoundError:
            return False
        fcntl.flock(self._file, fcntl.LOCK_EX)
        if self._path.exists():
            return True
        self._file.close()
        return False

    def leave(self) -> None:
        """Give the name up."""
        self._path.unlink(missing_ok=True)
        self._file.close()
        with contextlib.suppress(OSError):
            self._path.parent.rmdir()


def alive(ledger: Path, name: str) -> bool:
    """Whether the owner of that name still works on the ledger; nobody has a name of another form."""
    if not re.fullmatch("[0-9a-f]{16}", name):
        return False
    try:
        file = (_folder(ledger) / name).open("rb")
    except FileNotFoundError:
        return False
    with file:
        return not _free(file.fileno())


def working(ledger: Path) -> bool:
    """Whether any process works on the ledger."""
    folder = _folder(ledger)
    return folder.is_dir() and any(alive(ledger, path.name) for path in list(folder.iterdir()))


def _tidy(folder: Path) -> None:
    for path in list(folder.iterdir()):
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            if _free(file.fileno()):
                path.unlink(missing_ok=True)


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _folder(ledger: Path) -> Path:
    return ledger.with_name(f"{ledger.name}.owners")
