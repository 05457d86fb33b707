"""`stepdistill annotate --until-flat`: what it asks, pays, reads and leaves, and what it refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faulty_server import Fault, FaultyServer

TASK = """
name: boxes
instruction: Say the colour of the box.
input: "{text}"
id: id
answer: {kind: label, column: gold, labels: [red, blue]}
data: {files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
demonstrations:
  - {row: {text: "A box that is red."}, rationale: It is red., label: red}
"""
SIZES = {"train": 64, "validation": 40, "test": 4}
RUN: dict[str, Any] = {
    "student": {
        "model": "scratch:",
        "scratch": {"d_model": 32, "d_ff": 64, "heads": 2, "layers": 1, "dropout": 0.0},
    },
    "methods": ["finetune", "step-by-step", "step-by-step+shuffled"],
    "train": {"steps": 40, "batch_size": 8, "learning_rate": 1e-2, "threads": 1},
}


def knows(prompt: Any, max_tokens: int | None = None) -> str:
    """A teacher that reads the colour off the text."""
    colour = "red" if "red" in prompt[-1]["content"] else "blue"
    return f"It is {colour}. So the answer is {colour}."


class World:
    """A run file, a server that it asks, and the command line."""

    def __init__(self, home: Path, cli: Callable[..., Any], server: FaultyServer) -> None:
        self.home, self.cli, self.server, self.out = home, cli, server, home / "out"
        self.file = home / "run.yaml"
        self.write()

    def write(self, **changed: Any) -> None:
        """Write the run file, with some keys changed."""
        price = {"input": 100, "output": 200}
        teacher = {"backend": "openai", "model": "fake", "base_url": self.server.url, "price": price}
        values = {**RUN, "task": str(self.home / "task.yaml"), "teacher": teacher, "out": str(self.out)}
        self.file.write_text(yaml.safe_dump(values | changed))

    def grow(self, *flags: object, points: object = 2) -> Any:
        """Call the verb."""
        return self.cli("annotate", self.file, "-q", "--until-flat", points, *flags)


@pytest.fixture
def world(tmp_path: Path, cli: Any) -> Iterator[World]:
    (tmp_path / "task.yaml").write_text(TASK)
    for split, size in SIZES.items():
        colours = ["red" if number % 2 else "blue" for number in range(size)]
        rows = [
            {"id": f"{split}{i}", "text": f"Box {split} {i} is {c}.", "gold": c}
            for i, c in enumerate(colours)
        ]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with FaultyServer(answer=knows) as server:
        yield World(tmp_path, cli, server)


@pytest.mark.slow
def test_it_stops_where_the_curve_is_flat_and_nothing_is_paid_twice(world: World) -> None:
    world.server.plan = [Fault("status", status=401, after=6)]
    broken = world.grow()
    assert broken.code == 2
    assert "refuses the key" in broken.error
    assert len(json.loads((world.out / "until_flat.json").read_text())["steps"]) == 1
    world.server.plan = []

    done = world.grow("--json")
    assert done.code == 0, done.error
    found = json.loads(done.out)
    assert found["method"] == "step-by-step"
    assert [step["n"] for step in found["steps"]] == [4, 8, 16, 32]
    assert [step["gain"] is None for step in found["steps"]] == [True, True, False, False]
    # The first estimate is too low as well, and alone ends nothing.
    assert [step["stop"] for step in found["steps"]] == [False, False, False, True]
    assert "ends nothing" in found["steps"][2]["why"]
    assert (found["stopped"], found["total"]) == (True, 64)
    # Half is answered: the other half would have cost as much again.
    assert found["spent_usd"] == pytest.approx(found["rest_usd"])
    assert found["spent_usd"] > 0
    assert found["command"] == f"stepdistill run {world.file} --set data.fraction=0.5"
    written = json.loads((world.out / "until_flat.json").read_text())
    assert {**written, "command": found["command"]} == found
    # Training examples alone were asked for, each once, and nothing was measured on test.
    assert len(world.server.seen) == 32
    assert set(world.server.seen.values()) == {1}
    assert not list(world.out.rglob("predictions.jsonl"))

    before = world.server.counts["answered"]
    again = world.grow()
    assert again.code == 0
    assert world.server.counts["answered"] == before
    flat = r"Flat: from 32 to 64 examples [01]\.\d points are expected, fewer than 2 points"
    assert re.search(flat, again.out), again.out
    assert "32 of 64 are left without answers, which would have cost about $" in again.out
    assert found["command"] in again.out

    _, _, *flags = found["command"].split()[1:]
    ready = world.cli("run", world.file, "-q", "--json", *flags, "--set", "methods=[distill]")
    assert ready.code == 0, ready.error
    assert world.server.counts["answered"] == before + SIZES["test"]
    assert set(world.server.seen.values()) == {1}
    rows = map(json.loads, (world.out / "annotations.jsonl").read_text().splitlines())
    assert sum(row["split"] == "train" for row in rows) == 32
    late = world.grow("--set", "data.fraction=0.5")
    assert (late.code, late.error.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("changed", "points", "parts"),
    [
        ({}, 0, ["--until-flat 0", "above 0", "such as 0.5"]),
        ({}, "nan", ["above 0 and below 100"]),
        ({}, 100, ["below 100"]),
        ({"methods": ["finetune"]}, 1, ["none of the methods (finetune)", "step-by-step or distill"]),
        ({"methods": ["finetune", "step-by-step+filler"]}, 1, ["none of the methods"]),
        ({"data": {"fraction": 0.5}}, 1, ["data.fraction", "leave the key out"]),
        ({"data": {"limit": {"train": 15}}}, 1, ["15 training examples are too few"]),
        ({"annotate": {"splits": ["test"]}}, 1, ["annotate.splits lacks train"]),
    ],
)
def test_a_mistake_gets_one_line_and_nobody_is_asked(
    world: World, changed: dict[str, Any], points: object, parts: list[str]
) -> None:
    world.write(**changed)
    done = world.grow(points=points)
    assert (done.code, done.out, done.error.count("\n")) == (2, "", 1)
    assert [part for part in parts if part not in done.error] == [], done.error
    assert world.server.counts["requests"] == 0
    assert not world.out.exists()


def test_without_labelled_validation_there_is_nothing_to_measure(world: World) -> None:
    rows = map(json.loads, (world.home / "validation.jsonl").read_text().splitlines())
    bare = [json.dumps({**row, "gold": None}) for row in rows]
    (world.home / "validation.jsonl").write_text("\n".join(bare))
    done = world.grow()
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "no labelled 'validation' examples" in done.error
    (world.home / "task.yaml").write_text(TASK.replace("validation: validation.jsonl, ", ""))
    assert "no labelled 'validation' examples" in world.grow().error
    assert world.server.counts["requests"] == 0


def test_what_is_annotated_already_is_left_alone(world: World) -> None:
    assert world.cli("annotate", world.file, "-q").code == 0
    asked = world.server.counts["requests"]
    done = world.grow()
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "annotated already" in done.error
    assert world.server.counts["requests"] == asked


@pytest.mark.parametrize("flags", [("--preview", 1), ("--reparse",), ("--repair",), ("--export", "a.jsonl")])
def test_it_goes_with_no_other_work(world: World, flags: tuple[Any, ...]) -> None:
    done = world.grow(*flags)
    assert (done.code, done.out, done.error.count("\n")) == (2, "", 1)
    assert not world.out.exists()
