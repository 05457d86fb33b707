"""A run killed at any moment and started again ends like one that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("kill_harness.py")
RUN = """
task: claims
data: {limit: {train: 24, validation: 12, test: 12}}
teacher: {backend: simulated}
student: {model: "scratch:", scratch: {d_model: 32, d_ff: 32, heads: 2, layers: 1}}
methods: [finetune, step-by-step]
train: {epochs: 2, batch_size: 8, learning_rate: 1e-3, threads: 1}
out: runs/kill
"""


@pytest.mark.slow
def test_killed_at_any_step_on_the_disk_and_started_again_the_result_is_the_same(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    cases = int(os.environ.get("STEPDISTILL_KILLS", "10"))
    command = [sys.executable, str(HARNESS), str(file), str(tmp_path), str(cases), "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == cases
    assert [row for row in rows if row["signal"] != signal.SIGKILL] == []
    assert [row for row in rows if row["wrong"]] == []


@pytest.mark.slow
def test_the_command_killed_from_outside_goes_on_where_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    base = [sys.executable, "-m", "stepdistill", "run", str(file), "--quiet"]
    subprocess.run([*base, "--set", f"out={tmp_path / 'whole' / 'out'}"], check=True, capture_output=True)
    out = tmp_path / "killed" / "out"
    command = [*base, "--set", f"out={out}", "--set", "methods=[finetune, step-by-step]"]
    student = out / "students" / "finetune"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not student.exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    born = (student / "student.json").stat().st_mtime_ns
    subprocess.run(command, check=True, capture_output=True)
    assert (student / "student.json").stat().st_mtime_ns == born
    results = [(tmp_path / name / "out/results.jsonl").read_bytes() for name in ("whole", "killed")]
    assert results[0] == results[1]


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_keeps_finished_work_and_says_so_in_one_line(tmp_path: Path, sent: int) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(RUN)
    out = tmp_path / "run"
    command = [sys.executable, "-m", "stepdistill", "run", str(file), "--quiet", "--set", f"out={out}"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (out / "annotations.jsonl").exists() and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(sent)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (130 if sent == signal.SIGINT else 143)
    assert error.count("\n") == 1
    assert "Run the same command to go on" in error
    assert (out / "annotations.jsonl").exists()
