"""A task by name or file, and its examples split by split."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

from stepdistill.config import DataConfig, check, read_yaml
from stepdistill.errors import ConfigError, DataError, brief, unknown
from stepdistill.records import Demonstration, Example
from stepdistill.task.answers import AnswerKind
from stepdistill.task.schema import DemonstrationSpec, Split, TaskSpec, template_fields
from stepdistill.task.sources import ENVIRONMENT, Row, column, find_file, generate, iter_rows, open_hub
from stepdistill.task.stream import Examples, Hashes, Source, check_examples, cut, hide, join, limit
from stepdistill.task.subset import portion

# Taking a template apart for every row would be a fifth of the time of reading.
_fields = lru_cache(maxsize=64)(template_fields)


@dataclass(frozen=True)
class Task:
    """A task file as read, and the folder that its relative paths start from."""

    spec: TaskSpec
    folder: Path | None = None

    @cached_property
    def kind(self) -> AnswerKind:
        """Reads and compares the answers of this task."""
        return self.spec.answer.make()

    def render(self, row: Mapping[str, Any], template: str | None = None) -> str:
        """The input text x of a row: the template with its columns filled in.

        Raises:
            KeyError: a column of the template is not in the row.
        """
        text = template or self.spec.input
        values = {}
        for name in _fields(text):
            if name == "options" and self.spec.answer.options and not isinstance(row.get(name), str):
                values[name] = show_options(self.options(row))
            else:
                value = column(row, name)
                values[name] = "" if value is None else str(value)
        return text.format(**values).strip()

    def options(self, row: Mapping[str, Any], name: str | None = None) -> tuple[str, ...]:
        """The options of a row, for tasks of kind `choice`; empty for others.

        Raises:
            KeyError: there is no such column.
            ValueError: what stands there is not a list.
        """
        path = name or self.spec.answer.options
        if not path:
            return ()
        found = column(row, path)
        if isinstance(found, str) and found.lstrip().startswith("["):
            with contextlib.suppress(ValueError, RecursionError):
                found = json.loads(found)  # a table's cell
        if not isinstance(found, list | tuple) or not found:
            raise ValueError(f"the options in '{path}' are {brief(found)}; a list is expected")
        return tuple(str(option) for option in found)

    def demonstrations(self) -> tuple[Demonstration, ...]:
        """The prompt triplets, rendered as examples are, with their labels in canonical form."""
        return tuple(self._demonstration(spec) for spec in self.spec.demonstrations)

    def _demonstration(self, spec: DemonstrationSpec) -> Demonstration:
        # A task file may give a label by its code or letter; a prompt with "0" in it would teach that.
        options = self.options(spec.row)
        label = self.kind.gold(spec.label, options)
        return Demonstration(self.render(spec.row), spec.rationale.strip(), label, options)

    def show(self, rationale: str, label: str, options: Sequence[str] = ()) -> str:
        """A completion as the task asks for it: rationale, marker, label."""
        return f"{rationale} {self.spec.answer.marker} {self.kind.show(label, options)}."


def show_options(options: Sequence[str]) -> str:
    """Options as lettered lines, as in the paper's prompts."""
    return "\n".join(f"({chr(ord('a') + i)}) {option}" for i, option in enumerate(options))


def builtin_names() -> list[str]:
    """Names of the tasks that come with the package."""
    folder = resources.files("stepdistill.task") / "builtin"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def builtin_path(name: str) -> Path:
    """File of a built-in task."""
    return Path(str(resources.files("stepdistill.task") / "builtin" / f"{name}.yaml"))


def load_task(name: str) -> Task:
    """A built-in task by its name, or a task file by its path.

    Raises:
        ConfigError: no such task, or the file is not a task file.
    """
    if name in builtin_names():
        path, folder = builtin_path(name), None
    elif name.endswith((".yaml", ".yml")):
        path = Path(name).expanduser()
        folder = path.parent
    else:
        raise ConfigError(unknown("task", name, builtin_names()) + ", or a path to a .yaml file")
    task = Task(check(TaskSpec, read_yaml(path), str(path)), folder)
    _check_demonstrations(task, path)
    return task


def stream_examples(
    task: Task, data: DataConfig, only: Sequence[Split] = ("train", "validation", "test")
) -> dict[Split, Examples]:
    """The examples of a task by split, checked here and now in one pass, and read anew whenever wanted.

    The validation split is cut off where the task says so. Memory does not grow with the rows, but for
    8 bytes a row while they are checked, and the formats that `iter_rows` must read whole.

    Raises:
        DataError: a missing file or column, a doubled id, a label that is not one, an empty input.
    """
    spec = task.spec.data
    source = choose_place(task, data)
    # The validation split is cut from another one, which is then read for its sake alone.
    cut_from = [spec.validation.from_] if spec.validation and "validation" in only else []
    read = {*only, *cut_from}
    found: dict[Split, Examples] = {name: source.check(name) for name in source.splits if name in read}
    if spec.validation and "validation" not in found and spec.validation.from_ in found:
        origin = spec.validation.from_
        if spec.validation.n >= len(found[origin]):
            raise DataError(
                f"{task.spec.name}: {spec.validation.n} examples for validation do not fit into "
                f"{len(found[origin])} of '{origin}'; lower data.validation.n in the task file"
            )
        found[origin], found["validation"] = cut(found[origin], spec.validation.n, spec.validation.seed)
    limits = data.limit.model_dump()
    found = {name: limit(examples, limits[name]) for name, examples in found.items() if name in only}
    if data.unlabelled and "train" in found:
        held_out = Hashes(e.text for split, examples in found.items() if split != "train" for e in examples)
        found["train"] = join(found["train"], _unlabelled(data, held_out))
    if data.fraction and "train" in found:
        closed = bool(task.spec.answer.labels)
        found["train"] = portion(found["train"], data.fraction, data.fraction_seed or 0, closed)
    return found


def load_examples(
    task: Task, data: DataConfig, only: Sequence[Split] = ("train", "validation", "test")
) -> dict[Split, list[Example]]:
    """The examples of `stream_examples` as lists; raises what it raises."""
    return {split: list(examples) for split, examples in stream_examples(task, data, only).items()}


@dataclass(frozen=True)
class Place:
    """One of the three places where a task's rows can come from."""

    task: Task
    splits: Mapping[Split, str]
    root: Path | None = None
    hub: bool = False

    def check(self, split: Split) -> Examples:
        """The examples of a split, checked. Rows may lack the label's column, but not all of them."""
        source, lacking, has = self.open(split), "", False

        def make(row: Row, index: int) -> Example:
            nonlocal lacking, has
            if self._label(row) is None:
                here = f"row {index + 1}: no column '{self._label_name}'; the row has: {', '.join(row)}"
                lacking = lacking or here
            else:
                has = True
            return self._example(row, index, split)

        examples = check_examples(source, make, self.task.spec.id is not None)
        if lacking and not has:
            raise DataError(f"{source.name}, {lacking}. Name the right one in the task file")
        return examples

    @property
    def _label_name(self) -> str | None:
        hub = self.task.spec.data.hub if self.hub else None
        return (hub.column if hub else None) or self.task.spec.answer.column

    def _label(self, row: Row) -> tuple[Any] | None:
        """The value in the label's column; None where the row has no such column."""
        if self.task.spec.answer.column is None:
            return (None,)
        try:
            return (column(row, str(self._label_name)),)
        except KeyError:
            return None

    def open(self, split: Split) -> Source:
        """The rows of a split, unread."""
        spec = self.task.spec.data
        if self.root is not None:
            path = find_file(self.root, self.task.spec.name, self.splits[split])
            return Source(str(path), lambda: iter_rows(path), path)
        if self.hub and spec.hub:
            rows = open_hub(spec.hub, split)
            return Source(spec.hub.id, lambda: rows)
        if spec.generator is None:
            raise DataError(f"{self.task.spec.name}: no rows for '{split}'")
        made = generate(spec.generator, split)
        return Source(spec.generator.name, lambda: made)

    def _example(self, row: Row, index: int, split: Split) -> Example:
        hub = self.task.spec.data.hub if self.hub else None
        options = self.task.options(row, hub.options if hub else None)
        shown = {**row, "options": show_options(options)} if options else row
        text = self.task.render(shown, hub.input if hub else None)
        if not text:
            raise ValueError("the input text is empty")
        (value,) = self._label(row) or (None,)
        label = None if value is None or value == "" else self.task.kind.gold(value, options)
        return Example(self.id_of(row, index, split), text, label, options, self._rationale(row))

    def id_of(self, row: Row, index: int, split: Split) -> str:
        """The id of a row: its own, or its number where rows have none."""
        name = self.task.spec.id
        return str(column(row, name)) if name and (name in row or not self.hub) else f"{split}-{index}"

    def _rationale(self, row: Row) -> str | None:
        """A person's reasons, from the column that the task names; rows may lack it."""
        hub = self.task.spec.data.hub if self.hub else None
        name = (hub.rationale if hub else None) or self.task.spec.answer.rationale
        try:
            value = column(row, name) if name else None
        except KeyError:
            return None
        return (str(value).strip() or None) if value is not None else None


def data_root(task: Task, data: DataConfig) -> Path | None:
    """The folder of the data: `data.root`, else a user's task file's own, else the environment's.

    The environment comes last: set for one data set, it must not hide what lies beside a task file.
    """
    beside = task.folder is not None and any(
        (task.folder / name).exists() for name in task.spec.data.files.values()
    )
    given = data.root or (None if beside else os.environ.get(ENVIRONMENT))
    if given:
        root = Path(given).expanduser()
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give the folder of the data as data.root")
        return root
    return task.folder


def choose_place(task: Task, data: DataConfig) -> Place:
    """Where the rows of a task come from: generator, files or hub; raises DataError where there is none."""
    spec = task.spec.data
    if spec.generator is not None:
        return Place(task, {name: name for name in spec.generator.sizes})
    root = data_root(task, data)
    if data.source != "hub" and spec.files and root is not None:
        return Place(task, spec.files, root=root)
    if data.source != "files" and spec.hub is not None:
        return Place(task, spec.hub.splits, hub=True)
    if data.source == "hub":
        raise DataError(f"{task.spec.name}: data.source is 'hub' and the task file names no data.hub")
    needed = ", ".join(spec.files.values()) or "its files"
    raise DataError(
        f"{task.spec.name}: no data; give the folder that holds {needed} as data.root (or in {ENVIRONMENT})"
    )


def _unlabelled(data: DataConfig, held_out: Hashes) -> Examples:
    """Extra training inputs out of another task, their gold labels hidden (paper, 4.2)."""
    other = load_task(str(data.unlabelled))
    extra = stream_examples(other, DataConfig(root=data.root, source=data.source)).get("train")
    return hide(extra, other.spec.name, held_out) if extra else Examples(lambda: iter(()), 0)


def _check_demonstrations(task: Task, path: Path) -> None:
    for number, spec in enumerate(task.spec.demonstrations, start=1):
        try:
            task.render(spec.row)
            task.kind.gold(spec.label, task.options(spec.row))
        except KeyError as error:
            missing = f"no column '{error.args[0]}' in its row"
            raise ConfigError(f"{path}: demonstration {number} has {missing}") from None
        except ValueError as error:
            raise ConfigError(f"{path}: demonstration {number}: {error}") from None
