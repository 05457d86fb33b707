"""Test is read once for a configuration: readings are noted, whatever happens; a second one is refused."""

from __future__ import annotations

import errno
import subprocess
import sys
from dataclasses import replace
from io import FileIO
from pathlib import Path

import pytest

from stepdistill.errors import DataError, RunFolderError
from stepdistill.study import reads as journal
from stepdistill.study.reads import JOURNAL, Read, Reads

ONE = Read("claims", "c0ffee", "finetune", "da7a", "a")
OTHERS = [replace(ONE, config="beef"), replace(ONE, arm="distill"), replace(ONE, data="0")]


@pytest.fixture
def reads(tmp_path: Path) -> Reads:
    return Reads(tmp_path / JOURNAL)


def test_what_is_added_is_there_in_order(reads: Reads) -> None:
    assert reads.all() == []
    for read in (ONE, *OTHERS, replace(ONE, reopened=True)):
        reads.add(read)
    assert reads.all() == [ONE, *OTHERS, replace(ONE, reopened=True)]
    assert reads.of(ONE) == [ONE, replace(ONE, reopened=True)]


def test_only_the_same_arm_configuration_and_data_are_refused(reads: Reads) -> None:
    for read in OTHERS:
        reads.add(read)
    reads.refuse(ONE)
    reads.add(replace(ONE, folder="elsewhere"))
    with pytest.raises(RunFolderError, match="elsewhere") as caught:
        reads.refuse(ONE)
    assert "--reopen-test" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunFolderError, match="and the result is gone"):
        reads.refuse(replace(ONE, folder="elsewhere"))


def test_other_files_make_another_experiment_and_lines_without_them_count_for_all(reads: Reads) -> None:
    first = replace(ONE, sources="files")
    reads.add(first)
    reads.refuse(replace(ONE, sources="others"))
    for read in (first, ONE):
        with pytest.raises(RunFolderError, match="has been read"):
            reads.refuse(read)
    line = reads.path.read_text().replace(', "sources": "files"', "")
    assert "sources" not in line
    reads.path.write_text(line)
    assert reads.all() == [ONE]
    with pytest.raises(RunFolderError, match="has been read"):
        reads.refuse(replace(ONE, sources="others"))


@pytest.mark.parametrize("cut", [1, 5, 60])
@pytest.mark.parametrize("whole", [0, 1, 80])
def test_half_a_line_is_no_line_and_the_next_one_mends_it(reads: Reads, cut: int, whole: int) -> None:
    for _ in range(whole + 1):
        reads.add(ONE)
    reads.path.write_bytes(reads.path.read_bytes()[:-cut])
    assert reads.all() == [ONE] * whole
    reads.add(OTHERS[0])
    assert reads.all() == [ONE] * whole + OTHERS[:1]


def test_a_full_disk_leaves_whole_lines(reads: Reads, monkeypatch: pytest.MonkeyPatch) -> None:
    reads.add(ONE)

    def full(file: FileIO, line: bytes) -> None:
        file.write(line[:9])
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(journal, "_write", full)
        with pytest.raises(RunFolderError, match="no space is left"):
            reads.add(ONE)
    assert reads.path.read_bytes().endswith(b"}\n")
    assert reads.all() == [ONE]


@pytest.mark.parametrize("line", ["{", "[]", '{"task": "t"}'])
def test_a_line_that_is_none_is_said_with_its_place(reads: Reads, line: str) -> None:
    reads.add(ONE)
    reads.path.write_text(reads.path.read_text() + line + "\n")
    with pytest.raises(DataError, match=rf"{JOURNAL}:2"):
        reads.all()


def test_what_is_recorded_and_not_noted_is_noted_once(reads: Reads) -> None:
    recorded = [ONE, replace(ONE, reopened=True), OTHERS[0]]
    for _ in range(3):
        reads.settle(recorded)
        assert reads.all() == recorded
    reads.settle([replace(read, folder="copy") for read in recorded])
    assert reads.all() == recorded


def test_processes_add_side_by_side_and_lose_nothing(reads: Reads) -> None:
    code = (
        "import sys; from pathlib import Path; from stepdistill.study.reads import Read, Reads\n"
        "for n in range(40): Reads(Path(sys.argv[1])).add(Read('t', sys.argv[2], 'a' * 200, str(n), 'f'))"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(reads.path), str(n)]) for n in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    found = sorted((read.config, int(read.data)) for read in reads.all())
    assert found == [(str(who), n) for who in range(3) for n in range(40)]


def test_a_folder_that_cannot_keep_a_journal_is_told_before_the_work(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads.need_writable()
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(RunFolderError, match="not writable"):
        reads.need_writable()
