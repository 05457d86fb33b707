"""The command line, called in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from stepdistill.cli.main import main


@dataclass(frozen=True)
class Called:
    """What a call of the command line gave."""

    code: int
    out: str
    error: str


Cli = Callable[..., Called]

RUN = """
task: claims
data: {limit: {train: 24, validation: 12, test: 12}}
teacher: {backend: simulated}
student: {model: "scratch:", scratch: {d_model: 16, d_ff: 16, heads: 2, layers: 1}}
methods: [finetune, distill, step-by-step]
train: {epochs: 1, batch_size: 8, threads: 1}
out: OUT
"""


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Call `stepdistill` with arguments."""

    def call(*arguments: object) -> Called:
        monkeypatch.setattr(sys, "argv", ["stepdistill", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Called(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    """A small run on the simulated letters, its output below the test's folder."""
    path = tmp_path / "run.yaml"
    path.write_text(RUN.replace("OUT", str(tmp_path / "out")))
    return path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a small run that has ended."""
    home = tmp_path_factory.mktemp("finished")
    path = home / "run.yaml"
    path.write_text(RUN.replace("OUT", str(home / "out")))
    from stepdistill.config import load_run
    from stepdistill.records import unwatched
    from stepdistill.study.run import Run

    run = Run(load_run(path), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()
    return home / "out"
