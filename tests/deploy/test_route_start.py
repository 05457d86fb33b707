"""A start with `--route` that fails: one line, and no ledger is left behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from faulty_server import FaultyServer
from moods import router

from stepdistill.errors import ConfigError, MissingExtraError


@pytest.mark.parametrize(
    "wrong",
    [
        {"key_variable": "NO_SUCH_KEY"},
        {"max_cost_usd": 1.0},
        {"demonstrations": {"choose": "random", "n": 99}},
    ],
    ids=lambda wrong: str(next(iter(wrong))),
)
def test_a_start_that_fails_makes_no_ledger(
    tmp_path: Path, wrong: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError):
        router(tmp_path, FaultyServer(), **wrong)
    assert list(tmp_path.iterdir()) == []


def test_what_demonstrations_need_is_named_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, path: object = None, target: object = None) -> None:
            if name.partition(".")[0] == "sklearn":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"sklearn needs.*stepdistill\[train\]"):
        router(tmp_path, FaultyServer(), demonstrations={"choose": "nearest", "n": 2})
    assert list(tmp_path.iterdir()) == []
