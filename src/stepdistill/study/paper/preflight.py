"""What a study needs and cannot find: data, completions, weights; all of it at once, before any work."""

from __future__ import annotations

import importlib.util
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stepdistill import weights
from stepdistill.config import DataConfig, StudentConfig, StudyConfig, TeacherConfig, check
from stepdistill.errors import StepdistillError
from stepdistill.study.paper.shipped import students_of, tasks_of
from stepdistill.task.load import Task, data_root, load_task
from stepdistill.task.sources import find_file

SECONDS = 3.0
"""How long the hub is waited for, name look-up included."""
_TRUE = {"1", "ON", "YES", "TRUE"}
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_TOKENIZERS = ("tokenizer.json", "spiece.model", "tokenizer.model", "vocab.json")


@dataclass(frozen=True, slots=True)
class Missing:
    """One thing that cannot be found, and where to put it."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what}: {self.where}"


@dataclass
class Hub:
    """Whether the hub can be reached, asked once and for no longer than a few seconds.

    `HF_HUB_OFFLINE` and `TRANSFORMERS_OFFLINE` are respected, and `HF_ENDPOINT` is where it is.
    """

    seconds: float = SECONDS
    known: list[bool] = field(default_factory=list)

    def reachable(self) -> bool:
        """Whether it answers at all; an answer of any kind counts."""
        if not self.known:
            off = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
            offline = any(os.environ.get(name, "").upper() in _TRUE for name in off)
            self.known.append(not offline and _answers(_endpoint(), self.seconds))
        return self.known[0]


def missing(study: StudyConfig, hub: Hub | None = None) -> list[Missing]:
    """All that the study needs and that is not there; empty where it can start.

    Looks for files only: what is in them is checked when they are read.

    Raises:
        StepdistillError: the study itself is wrong, such as an unknown task.
    """
    hub = hub or Hub()
    found: list[Missing] = []
    data = check(DataConfig, study.run.get("data") or {}, "run.data")
    for name in tasks_of(study):
        task = load_task(name)
        found += _data(task, data, hub)
        found += [one for teacher in _teachers(study, name) for one in _completions(task, data, teacher)]
    for student in students_of(study):
        found += _weights(student, data, hub)
    return list(dict.fromkeys(found))


def _teachers(study: StudyConfig, task: str) -> list[TeacherConfig]:
    """Those that a task's trials learn from, each once."""
    found: list[TeacherConfig] = []
    usual = study.run.get("teachers") or [study.run.get("teacher") or {}]
    for grid in study.all_grids:
        if task in (grid.tasks or (study.run.get("task"),)):
            found += grid.teachers or [check(TeacherConfig, one, "run.teacher") for one in usual]
    return [one for place, one in enumerate(found) if one not in found[:place]]


def _data(task: Task, data: DataConfig, hub: Hub) -> Iterator[Missing]:
    spec = task.spec.data
    if spec.generator is not None:
        return
    root, lacking = _root(task, data)
    if data.source != "hub" and spec.files and root is not None:
        names = _not_there(root, task.spec.name, spec.files.values())
        if names or lacking:
            yield Missing(
                f"data of {task.spec.name}", f"{', '.join(names)} in {_folder(root, task.spec.name)}"
            )
        return
    readable = spec.hub is not None and data.source != "files" and importlib.util.find_spec("datasets")
    if spec.hub is not None and readable and (_cached(spec.hub.id) or hub.reachable()):
        return
    names = list(spec.files.values())
    yield Missing(
        f"data of {task.spec.name}",
        f"{', '.join(names)} in DIR/{task.spec.name}/ (--data-root DIR); the hub cannot be reached",
    )


def _completions(task: Task, data: DataConfig, teacher: TeacherConfig) -> Iterator[Missing]:
    if teacher.backend != "recorded":
        return
    whose = f"answers of {teacher.model or 'the teacher'} to {task.spec.name}"
    if teacher.completions:
        names = [name for name in teacher.completions.values() if not _first(Path(name)).exists()]
        if names:
            yield Missing(whose, ", ".join(names))
        return
    if not task.spec.data.completions:
        yield Missing(whose, "run.teacher.completions={train: FILE, test: FILE} (--set)")
        return
    root, _ = _root(task, data)
    wanted = task.spec.data.completions.values()
    names = _not_there(root, task.spec.name, [name.replace("{i}", "0") for name in wanted])
    if names:
        shown = [name for name in wanted if name.replace("{i}", "0") in names]
        yield Missing(whose, f"{', '.join(shown)} in {_folder(root, task.spec.name)}")


def _weights(student: StudentConfig, data: DataConfig, hub: Hub) -> Iterator[Missing]:
    model = student.model
    if model == "scratch:":
        return
    if model.startswith(weights.PACKAGE) or model.endswith(".gguf"):
        yield from _file(model)
        return
    folder = Path(model).expanduser()
    if not folder.is_dir() and (model.count("/") != 1 or model.startswith((".", "/", "~"))):
        yield Missing(f"weights of {model}", "there is no such folder; give another as run.student.model")
        return
    there = folder.is_dir()
    lacking = _lacking(lambda name: (folder / name).is_file() if there else _in_cache(model, name))
    if not lacking or (not there and hub.reachable()):
        return
    below = _folder(Path(data.root).expanduser() if data.root else None, model.rsplit("/", 1)[-1])
    where = str(folder) if there else f"{below} or the hub's cache (HF_HOME); the hub cannot be reached"
    yield Missing(f"weights of {model}", f"{', '.join(lacking)} in {where}")


def _file(model: str) -> Iterator[Missing]:
    try:
        found = weights.digests(model, "student.model")
    except StepdistillError as error:
        yield Missing(f"weights of {model}", str(error).removeprefix("student.model: "))
        return
    if not found:
        yield Missing(f"weights of {model}", "there is no such file; give another as run.student.model")
    elif importlib.util.find_spec("gguf") is None:
        yield Missing("the package gguf", "pip install 'stepdistill[gguf]'")


def _lacking(there: Callable[[str], bool]) -> list[str]:
    wanted = {"config.json": ("config.json",), "model.safetensors": _WEIGHTS}
    wanted["tokenizer.json or spiece.model"] = _TOKENIZERS
    return [said for said, names in wanted.items() if not any(map(there, names))]


def _root(task: Task, data: DataConfig) -> tuple[Path | None, bool]:
    """The data's folder, and whether it is named and not there."""
    try:
        return data_root(task, data), False
    except StepdistillError:
        return Path(str(data.root or os.environ["STEPDISTILL_DATA"])).expanduser(), True


def _not_there(root: Path | None, task: str, names: Iterable[str]) -> list[str]:
    found = []
    for name in names:
        try:
            find_file(root or Path(), task, name)
        except StepdistillError:
            found.append(name)
    return found


def _folder(root: Path | None, task: str) -> str:
    return f"{root / task}/" if root else f"DIR/{task}/ (--data-root DIR)"


def _first(path: Path) -> Path:
    return path.expanduser().with_name(path.name.replace("{i}", "0"))


def _in_cache(model: str, name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(model, name), str)


def _cached(data_set: str) -> bool:
    """Whether `datasets` has prepared a data set before, or it is a local folder."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    place = Path(os.environ.get("HF_DATASETS_CACHE", home / "datasets")).expanduser()
    return Path(data_set).is_dir() or (place / data_set.replace("/", "___")).is_dir()


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co")


def _answers(url: str, seconds: float) -> bool:
    # In a thread of its own: a name server that does not answer keeps a look-up longer than any time limit.
    heard: list[bool] = []

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the user's own endpoint
        try:
            with urllib.request.urlopen(request, timeout=seconds):  # noqa: S310
                heard.append(True)
        except urllib.error.HTTPError:
            heard.append(True)
        except (OSError, ValueError):
            heard.append(False)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(seconds)
    return bool(heard and heard[0])
