"""Packages that the core does without: each is brought by an extra, and named when it is missing."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from stepdistill.errors import EXTRAS, MissingExtraError, extras_named

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DISTRIBUTIONS = {"sklearn": "scikit-learn", "prometheus_client": "prometheus-client"}
WITHOUT = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name.partition(".")[0])
sys.meta_path.insert(0, Blocked())
"""


def run(code: str, blocked: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-c", WITHOUT.format(blocked=blocked) + code]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120, cwd=folder)


@pytest.mark.parametrize("package", EXTRAS)
def test_an_extra_brings_its_package_and_the_core_does_not(package: str) -> None:
    wanted = DISTRIBUTIONS.get(package, package)
    listed = PROJECT["optional-dependencies"][EXTRAS[package]]
    assert [line for line in listed if line.startswith(f"{wanted}>=")]
    assert not [line for line in PROJECT["dependencies"] if line.startswith(f"{wanted}>=")]


def test_a_verb_without_its_package_ends_with_one_line(tmp_path: Path) -> None:
    code = f"sys.argv = ['stepdistill', 'run', '{ROOT / 'examples' / 'quickstart.yaml'}']\n"
    done = run(code + "from stepdistill.cli.main import main\nmain()", ["torch"], tmp_path)
    line = "Error: importing torch needs an optional package; install it: pip install 'stepdistill[train]'"
    assert (done.returncode, done.stderr.strip()) == (2, line)
    assert list(tmp_path.iterdir()) == []


def test_a_public_name_without_its_package_says_the_same(tmp_path: Path) -> None:
    done = run("import stepdistill\nstepdistill.Run", ["torch", "transformers"], tmp_path)
    assert done.stderr.endswith("needs an optional package; install it: pip install 'stepdistill[train]'\n")
    assert "stepdistill.errors.MissingExtraError" in done.stderr


def test_other_missing_modules_are_defects_and_stay_so() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module"), extras_named():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(ModuleNotFoundError), extras_named():
        import numpy.no_such_part  # type: ignore[import-not-found]  # noqa: F401
    with pytest.raises(MissingExtraError, match=r"stepdistill\[train\]"), extras_named():
        raise ModuleNotFoundError("No module named 'torch'", name="torch")
