"""Several processes train what one trains: the same weights and losses, told once, saved once."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from stepdistill.errors import StudentError
from stepdistill.student.team import join

RUN = """
task: claims
data: {limit: {train: 24, validation: 8, test: 8}}
teacher: {backend: simulated}
student: {model: "scratch:", scratch: {d_model: 16, d_ff: 32, heads: 2, layers: 1}}
methods: [step-by-step]
train: {epochs: 1, batch_size: 8, threads: 1}
out: runs/two
"""
WORKER = Path(__file__).with_name("team_worker.py")

# Sums of float32 in another order; steps with AdamW at 1e-2 make of 1e-7 something like this.
TOLERANCE = 2e-4
LOSS_TOLERANCE = 1e-4

# 12 steps; lambda is measured at the first and at the eleventh.
RESTARTED: dict[str, Any] = {
    "dropout": 0.1,
    "train": {"save_every": 2, "micro_batch_size": 1, "lambda": "auto"},
    "scores": [0.1, 0.3, 0.2],
}


# The only network is the machine's own, and torch's remarks on it are not the program's words.
QUIET = {"GLOO_SOCKET_IFNAME": "lo", "TORCH_CPP_LOG_LEVEL": "ERROR", "OMP_NUM_THREADS": "1"}


def free_port() -> int:
    """A port below those that the system hands out, in another place for each process of the tests."""
    start = 20_000 + os.getpid() % 10_000
    for port in range(start, start + 1000):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"no port is free from {start} on")


def launch(folder: Path, settings: dict[str, Any], world: int) -> list[subprocess.CompletedProcess[str]]:
    """Run the worker in `world` processes that know one another, as a launcher lays it down."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    command = [sys.executable, str(WORKER), str(folder), json.dumps(settings)]
    started = []
    for rank in range(world):
        team = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        env = {**os.environ, **QUIET, "MASTER_ADDR": "127.0.0.1"}
        if world > 1:
            env |= {name: str(value) for name, value in team.items()}
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=env, stdout=pipe, stderr=pipe, text=True))
    try:
        ended = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    return [
        subprocess.CompletedProcess(command, process.returncode, *texts)
        for process, texts in zip(started, ended, strict=True)
    ]


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return load_file(folder / "s/model.safetensors"), json.loads((folder / "s/log.json").read_text())


def assert_alike(one: Path, two: Path) -> None:
    (first, log), (second, other) = outcome(one), outcome(two)
    # AdamW and clipping forgive a gradient that is some times too large; its norm does not.
    assert "grad_norm" in log[0]
    assert first.keys() == second.keys()
    assert max((first[name] - second[name]).abs().max().item() for name in first) < TOLERANCE
    assert [row["step"] for row in log] == [row["step"] for row in other]
    for row, same in zip(log, other, strict=True):
        # The share of the gradient is measured on the first micro-batches, and those are others.
        assert (row.pop("share_label", None) is None) == (same.pop("share_label", None) is None)
        assert row == pytest.approx(same, abs=LOSS_TOLERANCE, rel=LOSS_TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "lora", "settings"),
    [
        ("scratch", False, {}),
        ("scratch", True, {"gradient_checkpointing": True}),
        ("causal", False, {"micro_batch_size": 1, "loss_mean": "examples"}),
    ],
)
def test_two_processes_train_what_one_does(
    llama_folder: Path, tmp_path: Path, model: str, lora: bool, settings: dict[str, Any]
) -> None:
    given: dict[str, Any] = {"train": settings, "scores": [0.1, 0.3, 0.2]}
    if model == "causal":
        given["model"] = str(llama_folder)
    if lora:
        given["lora"] = {"rank": 2, "dropout": 0.0}
    alone = launch(tmp_path / "one", given, 1)
    pair = launch(tmp_path / "two", given, 2)
    assert [p.returncode for p in alone + pair] == [0, 0, 0], pair[1].stderr
    assert pair[0].stdout == alone[0].stdout
    assert pair[1].stdout == ""
    assert_alike(tmp_path / "one", tmp_path / "two")
    assert [path.name for path in (tmp_path / "two").iterdir()] == ["s"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training by two processes that nobody has disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    pair = launch(folder, RESTARTED, 2)
    assert [p.returncode for p in pair] == [0, 0], pair[0].stderr
    return folder


@pytest.mark.slow
def test_a_lambda_that_follows_the_gradients_is_the_same_in_all_processes(whole: Path) -> None:
    one, other = (json.loads((whole / f"lambdas-{rank}.json").read_text()) for rank in range(2))
    assert one == other
    assert {row["lambda"] for row in outcome(whole)[1] if "lambda" in row} == set(one)
    assert len(set(one)) == 2
    assert 1.0 not in one


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_to_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    killed = launch(tmp_path, {**RESTARTED, "die": 7 * 4}, 2)
    assert killed[0].returncode == -9
    assert killed[1].returncode != 0
    again = launch(tmp_path, {**RESTARTED, "scores": RESTARTED["scores"][1:]}, 2)
    assert [p.returncode for p in again] == [0, 0], again[0].stderr
    assert json.loads(again[0].stdout.splitlines()[13]) == ["train s", 6 * 4, 12 * 4]
    for name in ("model.safetensors", "log.json", "student.json"):
        assert (whole / "s" / name).read_bytes() == (tmp_path / "s" / name).read_bytes(), name


@pytest.mark.slow
def test_torchrun_starts_the_command_and_one_of_its_processes_speaks(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN)
    file, out = str(tmp_path / "run.yaml"), f"out={tmp_path / 'run'}"
    command = ["-m", "stepdistill", "annotate", file, "--quiet", "--set", out]
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command = [sys.executable, *torchrun, "-m", "stepdistill", "train", file, "--set", out]
    env = {**os.environ, **QUIET}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    student = tmp_path / "run/students/step-by-step"
    assert done.stdout.strip() == str(student)
    assert json.loads((student / "student.json").read_text())["machine"]["processes"] == 2


def test_a_launcher_that_started_one_process_where_several_were_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(StudentError, match="torchrun --nproc_per_node N"):
        join(cpu=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train": {"batch_size": 3}}, "batch_size 3 is not a multiple of 2"),
        ({"poison": True}, "loss is nan at step 1"),
    ],
)
def test_an_error_ends_all_processes_and_is_told_once_in_one_line(
    tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    ended = launch(tmp_path, settings, 2)
    assert [process.returncode for process in ended] == [2, 2], ended
    told = "".join(process.stderr for process in ended)
    assert words in told
    assert told.count("\n") == 1
    assert not (tmp_path / "s").exists()
