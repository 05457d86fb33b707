"""An export for CTranslate2 is asked where neither torch nor anything else of training is installed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import stepdistill

BLOCKED = ["torch", "transformers", "accelerate", "datasets", "scipy", "sklearn", "pyarrow", "matplotlib"]
WITHOUT = f"""
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {BLOCKED!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""
ASK = """
import json, stepdistill
student = stepdistill.load(sys.argv[1], threshold=0.0)
answers = student.predict(["Where is the fish?", "Where is the cow?"], explain=True)
print(json.dumps([[a.label, a.rationale, a.probabilities] for a in answers]))
print(len(student.scores(["Where is the box?"])))
"""
COMMAND = """
from stepdistill.cli.main import main
sys.argv = ["stepdistill", "predict", *sys.argv[1:]]
main()
"""


def without_training(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run code in a Python that has no package of training."""
    command = [sys.executable, "-c", WITHOUT + code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_export_answers_without_torch(light: Path) -> None:
    done = without_training(ASK, light)
    assert done.returncode == 0, done.stderr
    rows, scored = map(json.loads, done.stdout.splitlines())
    expected = stepdistill.load(light).predict(["Where is the fish?", "Where is the cow?"], explain=True)
    assert rows == [[a.label, a.rationale, dict(a.probabilities or {})] for a in expected]
    assert ([row[0] for row in rows], scored) == (["sea", "field"], 3)


def test_the_command_answers_without_torch(light: Path) -> None:
    done = without_training(COMMAND, light, "Where is the cow?", "--explain")
    assert (done.returncode, done.stdout.splitlines()) == (0, ["field", "One looks there."]), done.stderr


def test_a_students_own_folder_names_the_extra_that_it_needs(light: Path, labels: object) -> None:
    done = without_training(COMMAND, labels.folder, "Where is the cow?")  # type: ignore[attr-defined]
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'stepdistill[train]'" in done.stderr
