"""A training that is killed at any moments ends with the bytes of one that nobody disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_training.py")
KINDS = ("encoder-decoder", "causal", "causal by LoRA")
KILLS = int(os.environ.get("STEPDISTILL_KILLS", "20"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_random_moments_weights_log_and_card_are_those_of_an_undisturbed_run(
    tmp_path: Path, kind: str
) -> None:
    kills = -(-KILLS // len(KINDS))
    command = [sys.executable, str(HARNESS), str(tmp_path), str(kills), "0", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum("kill" in row for row in rows) == kills
    # Where nothing is left to go on from, a restart is nothing but another beginning.
    assert any(row.get("from") for row in rows)
    ended = [row for row in rows if "ended" in row]
    assert ended
    assert [row for row in ended if row["wrong"]] == []
    assert [row for row in rows if row.get("torn")] == []
