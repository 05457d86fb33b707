"""What all tests share: the place of the real data, and no network."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Child processes test the working tree too, as this process does (`pythonpath` in pyproject.toml).
os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parents[1] / "src")


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that would reach a network fails instead."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder with svamp/, cqa/, esnli/ and asdiv/ in the authors' layout, from STEPDISTILL_DATA."""
    given = os.environ.get("STEPDISTILL_DATA")
    if not given:
        pytest.skip("STEPDISTILL_DATA is not set: the folder of the real data sets")
    return Path(given).resolve()
