"""The rules of the house: one-way imports, sizes, public names, one sentence at the door."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

import stepdistill

SOURCE = Path(stepdistill.__file__).parent
ROOT = Path(__file__).resolve().parents[2]
STAGES = "errors records files config weights task teacher student evaluate study deploy cli"
ORDER = STAGES.split()
MODULES = sorted(SOURCE.rglob("*.py"))
TRAINING = {"stepdistill.student.train", "stepdistill.student.trainer", "stepdistill.student.loss"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def stage(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "stepdistill" and len(parts) > 1 else None


def named(path: Path) -> str:
    return ".".join(["stepdistill", *path.relative_to(SOURCE).with_suffix("").parts])


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_stage_imports_only_stages_above_it(path: Path) -> None:
    here = stage(named(path))
    if here in (None, "__init__", "__main__"):
        return
    below = [n for n in imports(path) if (s := stage(n)) and ORDER.index(s) > ORDER.index(str(here))]
    assert below == []


LEFT_BEHIND = ("stepdistill.deploy.export", "stepdistill.deploy.breakeven")
"""Parts of the stage that work on runs, where training is at home."""
ANSWERING = [
    path
    for path in MODULES
    if named(path).startswith("stepdistill.deploy.") and not named(path).startswith(LEFT_BEHIND)
]


def test_deployment_reaches_no_training_code() -> None:
    homes = {named(path): path for path in MODULES}
    waiting, reached = [named(path) for path in ANSWERING], set()
    assert waiting
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [found for found in imports(homes[name]) if found in homes and found not in reached]
    assert TRAINING.isdisjoint(reached)


HEAVIEST = {"torch", "transformers", "accelerate", "scipy", "sklearn", "pyarrow", "datasets", "matplotlib"}
"""What `pip install 'stepdistill[serve]'` does not bring."""
OF_TORCH = "stepdistill.deploy.engines.torch"
DOORS = {f"stepdistill.{name}" for name in ("__main__", "cli.main", "cli.predict", "cli.serve")}


def at_import(path: Path) -> Iterator[str]:
    """Modules that a module imports when it is imported itself: in no function, and not for types alone."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        waiting += ast.iter_child_nodes(node)


def reached_at_import(roots: Iterable[str]) -> dict[str, str]:
    """Everything that importing the roots imports, and which module asks for it."""
    homes = {named(path).removesuffix(".__init__"): path for path in MODULES}
    asked_by = dict.fromkeys(roots, "")
    waiting = list(asked_by)
    while waiting:
        name = waiting.pop()
        packages = [name.rpartition(".")[0]] if "." in name else []
        for found in [*packages, *(at_import(homes[name]) if name in homes else ())]:
            if found not in asked_by:
                asked_by[found] = name
                waiting.append(found)
    return asked_by


def test_answering_needs_no_torch() -> None:
    roots = {named(path).removesuffix(".__init__") for path in ANSWERING} - {OF_TORCH} | DOORS
    reached = reached_at_import(roots)
    assert "stepdistill.student.encode" in reached
    assert {name: by for name, by in reached.items() if name.split(".")[0] in HEAVIEST} == {}


def test_the_closure_of_imports_is_followed() -> None:
    reached = reached_at_import([OF_TORCH])
    assert {"torch", "transformers"} <= reached.keys()
    assert "matplotlib" not in reached


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_files_functions_and_parameter_lists_are_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
            given = [a for a in node.args.args + node.args.kwonlyargs if a.arg not in ("self", "cls")]
            # The parameters of a verb are its flags; each is given by name.
            assert len(given) <= (9 if is_verb(path, node.name) else 7), node.name


def is_verb(path: Path, name: str) -> bool:
    return path.parent.name == "cli" and path.stem == name


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_modules_open_with_a_sentence_and_public_names_say_what_they_do(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert (ast.get_docstring(tree) or "").split("\n")[0].rstrip(":").strip(), "module"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_nothing_evaluates_or_unpickles_or_waits_for_later(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert called.isdisjoint({"eval", "exec", "compile"})
    assert {"pickle", "dill", "joblib", "shelve", "marshal"}.isdisjoint(imports(path))
    raised = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)}
    assert "NotImplementedError" not in raised


def test_public_names_are_sorted_exist_and_are_all_there_is() -> None:
    names = stepdistill.__all__
    assert names == sorted(names)
    assert set(stepdistill._HOMES) | {"__version__"} == set(names)
    assert all(getattr(stepdistill, name) is not None for name in names)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = stepdistill.nothing_like_it


HEAVY = ("torch", "transformers", "pydantic", "matplotlib", "numpy")


@pytest.mark.parametrize("module", ["stepdistill", "stepdistill.records", "stepdistill.cli.main"])
def test_the_door_is_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_folder_is_called_after_nothing() -> None:
    names = {path.name for path in SOURCE.rglob("*") if path.is_dir()} | {p.stem for p in MODULES}
    assert names.isdisjoint({"utils", "common", "core", "base", "helpers", "manager", "util", "misc"})


def test_the_version_stands_in_one_way_in_both_places() -> None:
    assert f'version = "{stepdistill.__version__}"' in (ROOT / "pyproject.toml").read_text()
