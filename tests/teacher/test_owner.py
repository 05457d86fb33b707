"""Owners live as long as their processes, whatever happens to their files meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stepdistill.errors import RunFolderError
from stepdistill.teacher.owner import Owner, alive, working

DIE = "import os, sys; from pathlib import Path; from stepdistill.teacher.owner import Owner; "


def owner_of_a_dead_process(ledger: Path) -> str:
    """Name of an owner whose process ended without a word."""
    code = DIE + "o = Owner(Path(sys.argv[1])); print(o.name, flush=True); os.kill(os.getpid(), 9)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(ledger)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    return done.stdout.strip()


def test_an_owner_lives_until_it_leaves(tmp_path: Path) -> None:
    ledger = tmp_path / "a.sqlite"
    assert not working(ledger)
    owner = Owner(ledger)
    assert alive(ledger, owner.name)
    assert working(ledger)
    owner.leave()
    assert not alive(ledger, owner.name)
    assert not working(ledger)
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_is_no_owner_and_its_file_is_tidied_away(tmp_path: Path) -> None:
    ledger = tmp_path / "a.sqlite"
    name = owner_of_a_dead_process(ledger)
    assert not alive(ledger, name)
    assert not working(ledger)
    assert (tmp_path / "a.sqlite.owners" / name).exists()
    owner = Owner(ledger)
    assert not (tmp_path / "a.sqlite.owners" / name).exists()
    assert not alive(ledger, name)
    owner.leave()


def test_owners_do_not_disturb_each_other(tmp_path: Path) -> None:
    ledger = tmp_path / "a.sqlite"
    owners = [Owner(ledger) for _ in range(5)]
    assert len({owner.name for owner in owners}) == 5
    owners.pop(2).leave()
    assert all(alive(ledger, owner.name) for owner in owners)
    for owner in owners:
        owner.leave()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "..", "../a.sqlite", "/etc/passwd", "\0", "nobody"])
def test_a_damaged_name_is_nobody(tmp_path: Path, name: str) -> None:
    ledger = tmp_path / "a.sqlite"
    ledger.touch()
    owner = Owner(ledger)
    assert not alive(ledger, name)
    owner.leave()


def test_a_name_taken_away_while_it_is_being_taken_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process tidies the file up between its making and its locking."""
    import fcntl

    folder, lock, taken = tmp_path / "a.sqlite.owners", fcntl.flock, []

    def late(file: object, way: int) -> None:
        if not taken and way == fcntl.LOCK_EX:
            taken.extend(folder.iterdir())
            taken[0].unlink()
        lock(file, way)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "flock", late)
    owner = Owner(tmp_path / "a.sqlite")
    assert [path.name for path in folder.iterdir()] == [owner.name]
    assert taken[0].name != owner.name
    owner.leave()


def test_a_folder_that_comes_and_goes_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last of the others leaves, and removes the folder, at the worst moments."""
    mkdir, folder, calls = Path.mkdir, tmp_path / "a.sqlite.owners", []

    def vanishing(self: Path, *given: object, **more: object) -> None:
        calls.append(self)
        if len(calls) == 1:
            raise FileExistsError
        mkdir(self)
        if len(calls) == 2:
            os.rmdir(self)

    monkeypatch.setattr(Path, "mkdir", vanishing)
    owner = Owner(tmp_path / "a.sqlite")
    assert calls == [folder] * 3
    assert alive(tmp_path / "a.sqlite", owner.name)
    owner.leave()


def test_a_file_in_the_place_of_the_folder_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.sqlite.owners").touch()
    with pytest.raises(RunFolderError, match=r"a\.sqlite\.owners: a part of the path is a file"):
        Owner(tmp_path / "a.sqlite")
    assert not working(tmp_path / "a.sqlite")
