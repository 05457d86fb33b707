"""Faults done to the real command: nothing is lost, doubled or wrong, and little is paid twice."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import chaos
import pytest

pytestmark = pytest.mark.slow


def whole(figures: chaos.Figures) -> bool:
    return (figures.lost_rows, figures.doubled_rows, figures.wrong_rows) == (0, 0, 0)


def test_sigkill_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    figures = chaos.kill(4, 1, tmp_path)
    assert whole(figures)
    assert figures.most_billed_again <= chaos.ALLOWED


def test_two_processes_on_one_ledger_pay_each_prompt_once(tmp_path: Path) -> None:
    figures = chaos.pair(2, 1, tmp_path)
    assert whole(figures)
    assert figures.billed_again == 0


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="mounts a file system")
def test_a_full_disk_stops_the_intake_at_once(tmp_path: Path) -> None:
    figures = chaos.full(2, 1, tmp_path)
    assert whole(figures)
    assert figures.most_billed_again <= chaos.ALLOWED
    assert "make room" in figures.said
