"""What all tests share: the place of the real data, no network, and nothing left of one for the next."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Child processes test the working tree too, as this process does (`pythonpath` in pyproject.toml).
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")
# A busy machine makes any example slow, and that is no fault of the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Deal out files, whose tests share fixtures; the largest one by kind of student, for two processes."""
    from xdist.scheduler import LoadFileScheduling

    class ByFile(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid) + (" SmolLM2" if "SmolLM2" in nodeid else "")

    return ByFile(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would reach a network fails instead."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(autouse=True)
def same_threads() -> Iterator[None]:
    """A test that sets torch's threads sets them for itself alone; torch is not imported for this."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else int(os.environ["OMP_NUM_THREADS"])
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with svamp/, cqa/, esnli/ and asdiv/ in the authors' layout, from STEPDISTILL_DATA."""
    given = os.environ.get("STEPDISTILL_DATA")
    if not given:
        pytest.skip("STEPDISTILL_DATA is not set: the folder of the real data sets")
    return Path(given).resolve()
