"""A task by name or file, and its examples split by split."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from stepdistill.config import DataConfig, check, read_yaml
from stepdistill.errors import ConfigError, DataError, brief, unknown
from stepdistill.files import digest
from stepdistill.records import Demonstration, Example
from stepdistill.task.answers import AnswerKind
from stepdistill.task.schema import Split, TaskSpec, template_fields
from stepdistill.task.sources import Row, column, generate, read_hub, read_rows

ENVIRONMENT = "STEPDISTILL_DATA"
"""Environment variable with the folder of the data, where `data.root` is not given."""


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
        for name in template_fields(text):
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
        """The prompt triplets, rendered as examples are."""
        return tuple(
            Demonstration(self.render(d.row), d.rationale.strip(), d.label, self.options(d.row))
            for d in self.spec.demonstrations
        )

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


def load_examples(
    task: Task, data: DataConfig, only: Sequence[Split] = ("train", "validation", "test")
) -> dict[Split, list[Example]]:
    """The examples of a task by split, the validation split cut off where the task says so.

    Raises:
        DataError: a missing file or column, a doubled id, a label that is not one, an empty input.
    """
    spec = task.spec.data
    source = _choose_source(task, data)
    # The validation split is cut from another one, which is then read for its sake alone.
    cut_from = [spec.validation.from_] if spec.validation and "validation" in only else []
    read = {*only, *cut_from}
    found: dict[Split, list[Example]] = {name: source.read(name) for name in source.splits if name in read}
    if spec.validation and "validation" not in found and spec.validation.from_ in found:
        origin = spec.validation.from_
        if spec.validation.n >= len(found[origin]):
            raise DataError(
                f"{task.spec.name}: {spec.validation.n} examples for validation do not fit into "
                f"{len(found[origin])} of '{origin}'; lower data.validation.n in the task file"
            )
        # A generator of its own: the split must be the same whatever the seed of the run is.
        chosen = random.Random(spec.validation.seed).sample(  # noqa: S311 - no secret
            range(len(found[origin])), spec.validation.n
        )
        kept = set(chosen)
        found["validation"] = [found[origin][i] for i in sorted(kept)]
        found[origin] = [e for i, e in enumerate(found[origin]) if i not in kept]
    limits = data.limit.model_dump()
    found = {name: examples[: limits[name]] for name, examples in found.items() if name in only}
    if data.unlabelled and "train" in found:
        held_out = {e.text for split in ("validation", "test") for e in found.get(split, ())}
        found["train"] = found["train"] + [e for e in _unlabelled(data) if e.text not in held_out]
    return found


def digest_examples(examples: Mapping[Split, Sequence[Example]]) -> str:
    """Hash of all examples, their order and splits."""
    return digest(*(repr((name, list(rows))) for name, rows in sorted(examples.items())))


@dataclass(frozen=True)
class _Source:
    """One of the three places where a task's rows can come from."""

    task: Task
    splits: Mapping[Split, str]
    root: Path | None = None
    hub: bool = False

    def read(self, split: Split) -> list[Example]:
        spec = self.task.spec.data
        if self.root is not None:
            path = find_file(self.root, self.task.spec.name, self.splits[split])
            return self._examples(read_rows(path), split, str(path))
        if self.hub and spec.hub:
            return self._examples(read_hub(spec.hub, split), split, spec.hub.id)
        if spec.generator is None:
            raise DataError(f"{self.task.spec.name}: no rows for '{split}'")
        return self._examples(generate(spec.generator, split), split, spec.generator.name)

    def _examples(self, rows: Sequence[Row], split: Split, origin: str) -> list[Example]:
        seen: dict[str, int] = {}
        examples = []
        for index, row in enumerate(rows):
            try:
                example = self._example(row, index, split)
            except KeyError as error:
                raise DataError(
                    f"{origin}, row {index + 1}: no column '{error.args[0]}'; the row has: "
                    f"{', '.join(row)}. Name the right one in the task file"
                ) from None
            except ValueError as error:
                raise DataError(f"{origin}, row {index + 1}: {error}") from None
            if example.id in seen:
                raise DataError(
                    f"{origin}: the id {brief(example.id)} stands in rows {seen[example.id] + 1} and "
                    f"{index + 1}; ids must be unique (or set `id: null` to number the rows)"
                )
            seen[example.id] = index
            examples.append(example)
        return examples

    def _example(self, row: Row, index: int, split: Split) -> Example:
        spec, hub = self.task.spec, self.task.spec.data.hub if self.hub else None
        options = self.task.options(row, hub.options if hub else None)
        shown = {**row, "options": show_options(options)} if options else row
        text = self.task.render(shown, hub.input if hub else None)
        if not text:
            raise ValueError("the input text is empty")
        name = (hub.column if hub else None) or spec.answer.column
        if spec.answer.column is None:
            label = None
        else:
            value = column(row, str(name))
            label = None if value is None or value == "" else self.task.kind.gold(value, options)
        has_id = spec.id is not None and (spec.id in row or not self.hub)
        id_ = str(column(row, str(spec.id))) if has_id else f"{split}-{index}"
        return Example(id_, text, label, options)


def find_file(root: Path, task: str, name: str) -> Path:
    """A data file under the root, or under the folder of the task in it.

    Raises:
        DataError: it is in neither place.
    """
    places = [root / name, root / task / name]
    for path in places:
        if path.exists():
            return path
    raise DataError(
        f"{places[0]}: no such file (nor {places[1]}); give the folder that holds {name} as "
        f"data.root or in {ENVIRONMENT}"
    )


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


def _choose_source(task: Task, data: DataConfig) -> _Source:
    spec = task.spec.data
    if spec.generator is not None:
        return _Source(task, {name: name for name in spec.generator.sizes})
    root = data_root(task, data)
    if data.source != "hub" and spec.files and root is not None:
        return _Source(task, spec.files, root=root)
    if data.source != "files" and spec.hub is not None:
        return _Source(task, spec.hub.splits, hub=True)
    if data.source == "hub":
        raise DataError(f"{task.spec.name}: data.source is 'hub' and the task file names no data.hub")
    needed = ", ".join(spec.files.values()) or "its files"
    raise DataError(
        f"{task.spec.name}: no data; give the folder that holds {needed} as data.root (or in {ENVIRONMENT})"
    )


def _unlabelled(data: DataConfig) -> list[Example]:
    """Extra training inputs out of another task, their gold labels hidden (paper, 4.2)."""
    other = load_task(str(data.unlabelled))
    found = load_examples(other, DataConfig(root=data.root, source=data.source))
    return [Example(f"{other.spec.name}:{e.id}", e.text, None, e.options) for e in found.get("train", [])]


def _check_demonstrations(task: Task, path: Path) -> None:
    for number, spec in enumerate(task.spec.demonstrations, start=1):
        try:
            task.render(spec.row)
            task.kind.gold(spec.label, task.options(spec.row))
        except KeyError as error:
            raise ConfigError(
                f"{path}: demonstration {number} has no column '{error.args[0]}' in its row"
            ) from None
        except ValueError as error:
            raise ConfigError(f"{path}: demonstration {number}: {error}") from None
