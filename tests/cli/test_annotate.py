"""`stepdistill annotate` with teachers that are asked: what is sent, paid, read, kept and left behind."""

from __future__ import annotations

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from chaos import hear_ctrl_c
from faulty_server import Fault, FaultyServer

TASK = """
name: boxes
instruction: Count the pieces in the box.
input: "{text}"
id: id
answer: {kind: number, column: gold}
data: {files: {train: train.jsonl, validation: validation.jsonl, test: test.jsonl}}
demonstrations:
  - row: {text: "How many pieces are in box x?"}
    rationale: Box x holds a dozen.
    label: 12
  - row: {text: "How many pieces are in box y?"}
    rationale: Box y holds one less than a dozen.
    label: 11
"""
SPLITS = {"train": "a", "validation": "v", "test": "t"}
SIZES = {"train": 6, "validation": 2, "test": 3}
GOLD = {f"{name}{i}": 7000 + 100 * n + i for n, name in enumerate("avt") for i in range(6)}
"""Gold labels by box: numbers that stand in no text, so that a leak would show."""
ALL = sum(SIZES.values())
Script = Callable[[str, list[dict[str, str]], int], str]


def right(box: str, messages: list[dict[str, str]], number: int) -> str:
    """A teacher that knows."""
    return f"Box {box} was counted. So the answer is {GOLD[box]}."


class Voice:
    """What a fake model says: a script of (box, messages, how often this was asked before)."""

    def __init__(self, script: Script = right) -> None:
        self.script = script
        self.heard: list[list[dict[str, str]]] = []
        self._times: Counter[str] = Counter()

    def __call__(self, prompt: Any, max_tokens: int | None = None) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        self.heard.append(messages)
        box = re.findall(r"box (\w+)\?", "\n".join(m["content"] for m in messages))[-1]
        key = json.dumps(messages)
        self._times[key] += 1
        return self.script(box, messages, self._times[key] - 1)

    @property
    def boxes(self) -> list[str]:
        """The boxes asked for, in order."""
        return [re.findall(r"box (\w+)\?", json.dumps(messages))[-1] for messages in self.heard]


class World:
    """A folder with a task and its data, a run file, and a server that it asks."""

    def __init__(self, folder: Path, cli: Any, server: FaultyServer, voice: Voice) -> None:
        self.folder, self.cli, self.server, self.voice = folder, cli, server, voice
        self.out = folder / "out"
        self.ledger = folder / "ledger.sqlite"

    def write(self, teacher: dict[str, Any] | None = None, **more: Any) -> None:
        """Write the run file; `teacher` is laid over an ordinary one, unless `teachers` are given."""
        values: dict[str, Any] = {
            "task": str(self.folder / "task.yaml"),
            "student": {"model": "scratch:", "scratch": {"d_model": 16, "d_ff": 16, "heads": 2, "layers": 1}},
            "methods": ["distill", "step-by-step"],
            "train": {"epochs": 1, "batch_size": 8, "threads": 1},
            "out": str(self.out),
            **more,
        }
        values["annotate"] = {"splits": ["train", "validation", "test"], **values.get("annotate", {})}
        if "teachers" not in more:
            values["teacher"] = self.teacher(**(teacher or {}))
        (self.folder / "run.yaml").write_text(yaml.safe_dump(values))

    def teacher(self, **more: Any) -> dict[str, Any]:
        """An ordinary teacher; one request at a time, so that the order of answers is known."""
        asked = {"backend": "openai", "model": "fake", "base_url": self.server.url}
        return {**asked, "limits": {"concurrency": 1}, "price": {"input": 100, "output": 200}, **more}

    def call(self, verb: str, *flags: object, **settings: Any) -> Any:
        """Call a verb quietly; settings are `--set`, with `__` for the dot."""
        given = [f"{name.replace('__', '.')}={json.dumps(value)}" for name, value in settings.items()]
        sets = [word for setting in given for word in ("--set", setting)]
        return self.cli(verb, self.folder / "run.yaml", "-q", *sets, *flags)

    def annotate(self, *flags: object, **settings: Any) -> Any:
        """Annotate, which must end well."""
        done = self.call("annotate", *flags, **settings)
        assert (done.code, done.error) == (0, "")
        return done

    def rows(self, name: str = "annotations", out: str = "out") -> dict[str, dict[str, Any]]:
        """Rows of a file of the run folder by id."""
        lines = (self.folder / out / f"{name}.jsonl").read_text().splitlines()
        return {row["id"]: row for row in map(json.loads, lines)}

    def stored(self) -> int:
        """Completions in the ledger."""
        with sqlite3.connect(self.ledger) as db:
            return int(db.execute("SELECT COUNT(*) FROM completions").fetchone()[0])

    @property
    def requests(self) -> int:
        """Requests that the server has seen."""
        return self.server.counts["requests"]


def lines_of(split: str, size: int) -> str:
    """Data rows."""
    names = [f"{SPLITS[split]}{i}" for i in range(size)]
    rows = [{"id": n, "text": f"How many pieces are in box {n}?", "gold": GOLD[n]} for n in names]
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def world(tmp_path: Path, cli: Any) -> Iterator[World]:
    """Six boxes to train on, two for validation, three for test; nobody has been asked."""
    (tmp_path / "task.yaml").write_text(TASK)
    for split, size in SIZES.items():
        (tmp_path / f"{split}.jsonl").write_text(lines_of(split, size))
    voice = Voice()
    with FaultyServer(answer=voice) as server:
        made = World(tmp_path, cli, server, voice)
        made.write()
        yield made


@pytest.fixture
def second(tmp_path: Path) -> Iterator[tuple[FaultyServer, Voice]]:
    """Another server with a model of its own."""
    voice = Voice()
    with FaultyServer(answer=voice) as server:
        yield server, voice


def says(number: int | str, why: str = "So it looks.") -> str:
    """An answer in the task's words."""
    return f"{why} So the answer is {number}."


def one_line(done: Any, *parts: str, code: int = 2) -> None:
    """A refusal: one line on stderr, nothing on stdout."""
    assert (done.code, done.out) == (code, "")
    assert done.error.startswith("Error: ")
    assert done.error.count("\n") == 1
    assert [part for part in parts if part not in done.error] == [], done.error


def test_every_example_is_asked_once_and_its_answer_joined_by_id(world: World) -> None:
    done = world.annotate()
    assert sorted(world.voice.boxes) == sorted(f"{n}{i}" for s, n in SPLITS.items() for i in range(SIZES[s]))
    rows = world.rows()
    assert {id_: int(row["label"]) for id_, row in rows.items()} == {id_: GOLD[id_] for id_ in rows}
    assert all(row["rationale"] == f"Box {id_} was counted." for id_, row in rows.items())
    assert world.rows("left_out") == {}
    assert f"{ALL} answers asked" in done.out
    assert str(world.out) in done.out


def test_a_second_call_asks_nobody_and_changes_nothing(world: World) -> None:
    world.annotate()
    files = [world.out / name for name in ("annotations.jsonl", "left_out.jsonl", "parse_report.json")]
    before = [file.read_bytes() for file in files]
    done = world.annotate()
    assert (world.requests, world.stored()) == (ALL, ALL)
    assert f"0 answers asked (0 requests), {ALL} taken from the ledger" in done.out
    assert [file.read_bytes() for file in files] == before


def test_another_run_beside_it_takes_the_answers_and_pays_nothing(world: World) -> None:
    world.annotate(teacher__max_tokens=100, data__limit={"train": 4})
    paid = json.loads(world.annotate("--json", teacher__max_tokens=100, data__limit={"train": 4}).out)[
        "money"
    ]
    assert world.requests == ALL - 2
    # A finished answer under a larger limit is the same answer; only the two new examples are asked.
    found = json.loads(world.annotate("--json", teacher__max_tokens=400, out=str(world.folder / "two")).out)
    assert (found["asked"]["answered"], found["asked"]["reused"]) == (2, ALL - 2)
    assert found["money"]["paid"] - paid["paid"] == found["asked"]["cost"] > 0
    assert set(world.server.seen.values()) == {1}


def test_draws_are_kept_apart_and_vote(world: World) -> None:
    said = ["first", "second", "third"]
    world.voice.script = lambda box, _, n: says(1 if n == 0 else GOLD[box], f"The {said[n]}.")
    world.write({"draws": 3, "temperature": 0.7})
    world.annotate()
    assert (world.requests, world.stored()) == (3 * ALL, 3 * ALL)
    row = world.rows()["a0"]
    assert (row["label"], row["confidence"], row["rationale"]) == ("7000", 0.6667, "The second.")
    assert row["more"] == ["The third."]
    assert [(other["draw"], other["label"]) for other in row["others"]] == [(0, "1"), (2, "7000")]
    kept = {"all": ["The first.", "The third."], "one": []}
    for keep, more in kept.items():
        world.annotate("--reparse", annotate__keep=keep)
        assert world.rows()["a0"]["more"] == more
    assert world.requests == 3 * ALL


def test_more_draws_ask_only_for_the_new_ones(world: World) -> None:
    world.write({"draws": 2, "temperature": 0.7})
    world.annotate()
    world.annotate(teacher__draws=3, out=str(world.folder / "three"))
    assert world.requests == 3 * ALL


def test_of_equally_many_votes_the_first_said_wins(world: World) -> None:
    world.voice.script = lambda box, _, n: says((5, 4, 4, 5)[n])
    world.write({"draws": 4, "temperature": 1.0})
    world.annotate()
    assert {(row["label"], row["confidence"]) for row in world.rows().values()} == {("5", 0.5)}


def test_several_teachers_are_each_asked_and_combined(world: World, second: Any) -> None:
    server, voice = second
    world.voice.script = lambda box, _, n: "I do not know." if box == "a1" else says(1, "Guess.")
    voice.script = lambda box, _, n: says(2, "Look.") if n < 2 else says(1, "Look again.")
    two = world.teacher(model="other", base_url=server.url, draws=3, temperature=0.5)
    world.write(teachers=[world.teacher(), two], annotate={"combine": "first"})
    world.annotate()
    assert (world.requests, server.counts["requests"]) == (ALL, 3 * ALL)
    first = world.rows()
    assert (first["a0"]["label"], first["a0"]["model"], first["a0"]["confidence"]) == ("1", "fake", 1.0)
    assert (first["a1"]["label"], first["a1"]["model"], first["a1"]["confidence"]) == ("2", "other", 0.6667)
    assert Counter(other["teacher"] for other in first["a0"]["others"]) == {"other": 3}
    world.annotate("--reparse", annotate__combine="vote")
    voted = world.rows()
    assert (voted["a0"]["label"], voted["a0"]["confidence"]) == ("1", 0.5)
    assert (voted["a1"]["label"], voted["a1"]["confidence"]) == ("2", 0.5)
    world.annotate("--reparse", annotate__combine="all")
    every = world.rows()["a0"]
    assert (every["label"], every["confidence"]) == ("1", 0.5)
    assert [every["rationale"], *every["more"]] == ["Guess.", "Look."]
    report = json.loads((world.out / "parse_report.json").read_text())["train"]["teachers"]
    assert {name: (part["answers"], part["read"]) for name, part in report.items()} == {
        "fake": (6, 5),
        "other": (18, 18),
    }
    assert (world.requests, server.counts["requests"]) == (ALL, 3 * ALL)


def test_one_model_prompted_in_two_ways_is_two_teachers(world: World) -> None:
    ways = [world.teacher(), world.teacher(style="text", draws=3, temperature=0.5)]
    world.voice.script = lambda box, messages, n: says(1 if len(messages) > 1 else 2)
    world.write(teachers=ways)
    world.annotate()
    row = world.rows()["a0"]
    assert (row["label"], row["confidence"]) == ("1", 1.0)
    assert {other["teacher"] for other in row["others"]} == {"fake (2)"}


def test_recorded_answers_and_a_model_are_two_teachers(world: World) -> None:
    recorded = world.folder / "recorded.jsonl"
    recorded.write_text("".join(json.dumps({"id": f"a{i}", "completion": says(3)}) + "\n" for i in range(3)))
    world.write(teachers=[{"backend": "recorded", "completions": {"train": str(recorded)}}, world.teacher()])
    world.annotate()
    labels = [world.rows()[f"a{i}"]["label"] for i in range(6)]
    assert labels == ["3", "3", "3", "7003", "7004", "7005"]
    assert world.requests == ALL


def test_zero_shot_asks_again_only_where_the_first_answer_does_not_read(world: World) -> None:
    def script(box: str, messages: list[dict[str, str]], number: int) -> str:
        if messages[-1]["content"].startswith("Now finish"):
            return f"{GOLD[box]}"
        return right(box, messages, number) if int(box[1]) % 2 == 0 else f"Box {box} is large."

    world.voice.script = script
    world.write({"prompt": "zero-shot"})
    world.annotate()
    twice = [box for box, n in Counter(world.voice.boxes).items() if n == 2]
    assert sorted(twice) == ["a1", "a3", "a5", "t1", "v1"]
    rows = world.rows()
    assert {id_: int(row["label"]) for id_, row in rows.items()} == {id_: GOLD[id_] for id_ in rows}
    assert rows["a1"]["rationale"] == "Box a1 is large."
    assert not any("box x" in json.dumps(messages) for messages in world.voice.heard)
    world.annotate()
    assert world.requests == ALL + 5


def test_hints_are_given_only_for_training_examples_that_went_wrong(world: World) -> None:
    def script(box: str, messages: list[dict[str, str]], number: int) -> str:
        told = re.search(r"known to be: (\d+)", messages[-1]["content"])
        if told:
            return says(told[1] if box != "a4" else 9, "Now I see.")
        return says(GOLD[box] if box in ("a0", "v0") else 1, "I guess.")

    world.voice.script = script
    world.write({"prompt": "hinted"})
    world.annotate()
    hinted = [m for m in world.voice.heard if "known to be" in m[-1]["content"]]
    assert sorted(re.findall(r"box (\w+)\?", m[-1]["content"])[0] for m in hinted) == [
        "a1", "a2", "a3", "a4", "a5",
    ]  # fmt: skip
    # The gold label stands in no prompt but the hinted one of its own example.
    for messages in world.voice.heard:
        for box, gold in GOLD.items():
            if str(gold) in json.dumps(messages):
                assert messages in hinted
                assert f"box {box}?" in messages[-1]["content"]
    rows = world.rows()
    assert (rows["a1"]["label"], rows["a1"]["rationale"], rows["a1"]["hinted"]) == (
        "7001",
        "Now I see.",
        True,
    )
    assert rows["a1"]["rule"].startswith("hinted: ")
    assert {id_ for id_, row in rows.items() if row.get("hinted")} == {"a1", "a2", "a3", "a5"}
    assert (rows["a4"]["label"], rows["t0"]["label"], rows["v1"]["label"]) == ("1", "1", "1")
    # How often the teacher is right by itself is not embellished by what it was told.
    accuracy = json.loads((world.out / "parse_report.json").read_text())["train"]["accuracy"]
    assert sum(found["right"] for found in accuracy.values()) == 1


def wrong_twice_and_unread_once(box: str, messages: list[dict[str, str]], number: int) -> str:
    """a1 and a3 wrong, a5 unreadable, everything of test wrong."""
    if box == "a5":
        return "Who knows."
    return says(1 if box in ("a1", "a3") or box[0] == "t" else GOLD[box])


def test_what_disagrees_with_gold_is_left_out_of_training_and_of_training_only(world: World) -> None:
    world.voice.script = wrong_twice_and_unread_once
    world.write(annotate={"verify": "agree-with-gold"})
    world.annotate()
    left_out = {id_: row["left_out"] for id_, row in world.rows("left_out").items()}
    disagrees = "disagrees with gold"
    assert left_out == {"a1": disagrees, "a3": disagrees, "a5": "unread: no answer marker"}
    assert world.rows()["a1"]["completion"] == says(1)
    assert world.rows()["t0"]["label"] == "1"
    done = world.call("run")
    assert done.code == 0, done.error
    assert "3 of 6 teacher's answers on train are left out (disagrees with gold: 2" in done.out
    cards = {n: json.loads((world.out / "students" / n / "student.json").read_text()) for n in METHODS}
    assert (cards["distill"]["n_train"], cards["distill"]["n_left_out"]) == (3, 3)
    assert cards["step-by-step"]["n_rationales"] == 3
    assert world.requests == ALL


METHODS = ("distill", "step-by-step")


def test_without_verification_only_the_unread_is_left_out(world: World) -> None:
    world.voice.script = wrong_twice_and_unread_once
    world.annotate()
    assert list(world.rows("left_out")) == ["a5"]


def test_what_has_no_majority_is_left_out(world: World) -> None:
    world.voice.script = lambda box, _, n: says(n if box == "a2" else 5)
    world.write({"draws": 3, "temperature": 1.0}, annotate={"verify": "majority"})
    world.annotate()
    assert {id_: row["left_out"] for id_, row in world.rows("left_out").items()} == {"a2": "no majority"}


def test_the_parse_report_says_how_often_each_rule_is_right(world: World) -> None:
    said = {"a0": "The answer is 7000.", "a1": "Answer: 1", "a5": ""}
    world.voice.script = lambda box, _, n: said.get(box, says(GOLD[box]))
    done = world.annotate()
    train = json.loads((world.out / "parse_report.json").read_text())["train"]
    assert (train["examples"], train["answers"], train["read"]) == (6, 6, 5)
    assert train["unread"] == {"empty completion": 1}
    others = {rule: n for rule, n in train["accuracy"].items() if rule.startswith("other marker")}
    assert sum(n["n"] for n in others.values()) == 2
    assert sum(n["right"] for n in others.values()) == 1
    assert "empty completion: 1" in " ".join(done.out.split())
    assert "%)" in done.out


def test_a_preview_sends_nothing_and_shows_what_is_then_sent(world: World) -> None:
    before = list(world.folder.iterdir())
    shown = json.loads(world.annotate("--preview", 3, "--json").out)
    text = world.annotate("--preview", 3).out
    assert world.requests == 0
    assert sorted(path.name for path in world.folder.iterdir() if path not in before) == []
    (one,) = shown
    assert [prompt[0] for prompt in one["prompts"]] == ["a0", "a1", "a2"]
    found = json.loads(world.annotate("--json").out)
    for number, (_, prompt, _) in enumerate(one["prompts"]):
        assert [*prompt["head"], *prompt["tail"]] == world.voice.heard[number]
        assert all(message["content"] in text for message in world.voice.heard[number])
    assert (one["asks"], one["reused"], one["further"]) == (ALL, 0, 0)
    assert 0 < found["money"]["paid"] <= one["most"]
    assert 0 < one["about"] <= one["most"]
    again = json.loads(world.annotate("--preview", 1, "--json").out)[0]
    assert (again["asks"], again["reused"], again["most"], again["about"]) == (0, ALL, 0, 0)
    assert world.requests == ALL


def test_a_preview_shows_each_prompt_once_whatever_the_draws(world: World) -> None:
    world.write({"draws": 5, "temperature": 1.0})
    (one,) = json.loads(world.annotate("--preview", 2, "--json").out)
    assert [prompt[0] for prompt in one["prompts"]] == ["a0", "a1"]
    assert one["asks"] == 5 * ALL


@pytest.mark.parametrize(("prompt", "further"), [("zero-shot", ALL), ("hinted", SIZES["train"])])
def test_a_preview_counts_the_second_stage_too(world: World, prompt: str, further: int) -> None:
    world.voice.script = lambda box, _, n: "Hard to say."
    world.write({"prompt": prompt, "max_tokens": 30})
    (one,) = json.loads(world.annotate("--preview", 1, "--json").out)
    assert (one["asks"], one["further"]) == (ALL, further)
    found = json.loads(world.annotate("--json").out)
    assert found["asked"]["answered"] == ALL + further
    assert found["money"]["paid"] <= one["most"]


def test_a_preview_of_a_model_without_a_price_says_so(world: World) -> None:
    world.write({"price": None})
    assert "give teacher.price" in world.annotate("--preview", 1).out


def test_the_budget_is_hard_and_raising_it_goes_on(world: World) -> None:
    world.write({"max_tokens": 20, "limits": {"concurrency": 4}})
    elsewhere = {"annotate__ledger": str(world.folder / "else.sqlite"), "out": str(world.folder / "else")}
    whole = json.loads(world.annotate("--json", **elsewhere).out)["money"]["paid"]
    world.server.reset()
    cap = 0.6 * whole / 1e9
    done = world.call("annotate", annotate__max_cost_usd=cap)
    one_line(done, "the budget is reached after", "annotate.max_cost_usd", "raise it", code=3)
    assert 0 < world.stored() < ALL
    assert not (world.out / "annotations.jsonl").exists()
    found = json.loads(world.call("annotate", "--json", "--reparse", annotate__max_cost_usd=cap).out)
    assert 0 < found["money"]["paid"] <= cap * 1e9
    assert found["train"]["answers"] == world.server.counts["answered"] == world.stored()
    world.annotate(annotate__max_cost_usd=2 * whole / 1e9)
    assert set(world.server.seen.values()) == {1}
    assert len(world.server.seen) == world.stored() == ALL


def test_a_change_of_the_reading_rule_reads_the_stored_answers_anew(world: World) -> None:
    task = TASK.replace("kind: number", "kind: choice, options: offer, read: READ")
    task = re.sub(r"\{text: (.*)\}", r"{text: \1, offer: [twelve, eleven]}", task)
    task = task.replace("label: 12", "label: twelve").replace("label: 11", "label: eleven")
    for split, size in SIZES.items():
        rows = map(json.loads, lines_of(split, size).splitlines())
        texts = [json.dumps({**row, "offer": ["many", "few"], "gold": "many"}) for row in rows]
        (world.folder / f"{split}.jsonl").write_text("\n".join(texts))
    (world.folder / "task.yaml").write_text(task.replace("READ", "text"))
    world.voice.script = lambda box, _, n: "It is (a). So the answer is (b) few or (a) many."
    world.annotate()
    assert {row["label"] for row in world.rows().values()} != {"few"}
    (world.folder / "task.yaml").write_text(task.replace("READ", "first-letter"))
    one_line(world.call("annotate"), "another configuration", "(task file)", "--reparse")
    world.annotate("--reparse", out=str(world.folder / "two"))
    assert {row["label"] for row in world.rows(out="two").values()} == {"few"}
    # In the same folder too, as long as nothing is trained on the old reading.
    world.annotate("--reparse")
    assert (world.out / "annotations.jsonl").read_text() == (
        world.folder / "two" / "annotations.jsonl"
    ).read_text()
    world.annotate()
    assert world.requests == ALL


def test_reading_anew_what_nobody_answered_is_refused(world: World) -> None:
    one_line(world.call("annotate", "--reparse"), "holds no answer to any example")
    world.annotate()
    # Another marker is another prompt, since the demonstrations show it.
    (world.folder / "task.yaml").write_text(TASK.replace("gold}", "gold, marker: 'In short:'}"))
    one_line(world.call("annotate", "--reparse", out=str(world.folder / "two")), "holds no answer")
    assert world.requests == ALL


def test_reading_anew_does_not_change_what_is_annotated(world: World) -> None:
    world.annotate()
    done = world.call("annotate", "--reparse", data__limit={"train": 2})
    one_line(done, "another configuration", "(data)")
    assert "--reparse" not in done.error
    assert len(world.rows()) == ALL


@pytest.mark.parametrize("ending", ["jsonl", "parquet", "PARQUET"])
def test_an_export_holds_inputs_and_annotations_together(world: World, ending: str) -> None:
    world.voice.script = wrong_twice_and_unread_once
    path = world.folder / "deep" / f"annotations.{ending}"
    world.annotate("--export", path)
    if ending == "jsonl":
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(path).to_pylist()
        datasets = pytest.importorskip("datasets")
        again = datasets.Dataset.from_parquet(str(path), cache_dir=str(world.folder / "cache"))
        assert again.to_list() == rows
    assert len(rows) == ALL
    first, last = rows[0], next(row for row in rows if row["id"] == "a5")
    assert (first["id"], first["split"], first["gold"], first["label"]) == ("a0", "train", "7000", "7000")
    assert first["text"] == "How many pieces are in box a0?"
    assert first["rationales"] == [first["rationale"]] == ["So it looks."]
    assert (last["label"], last["unread"], last["left_out"]) == (
        None,
        "no answer marker",
        "unread: no answer marker",
    )
    assert [row["completion"] for row in rows] == [row["completion"] for row in world.rows().values()]


def test_an_export_overwrites_nothing_and_knows_its_endings_before_anybody_is_asked(world: World) -> None:
    there = world.folder / "mine.jsonl"
    there.write_text("mine")
    one_line(world.call("annotate", "--export", there), "mine.jsonl", "already")
    assert there.read_text() == "mine"
    one_line(world.call("annotate", "--export", world.folder / "a.csv"), ".jsonl", ".parquet")
    assert world.requests == 0


def test_repair_reaches_the_salvage(world: World) -> None:
    pytest.importorskip("stepdistill.teacher.salvage")
    world.annotate()
    assert world.call("annotate", "--repair").code == 0
    world.annotate()
    assert world.requests == ALL


def test_what_stopped_in_the_middle_goes_on_where_it_was(world: World) -> None:
    world.server.plan = [Fault("status", status=401, after=4)]
    one_line(world.call("annotate"), "refuses the key")
    stored = world.stored()
    assert 0 < stored < ALL
    world.server.plan = []
    assert f"{ALL - stored} answers asked" in world.annotate().out
    assert set(world.server.seen.values()) == {1}
    assert len(world.rows()) == ALL


def test_ctrl_c_keeps_what_is_answered_and_the_same_command_goes_on(world: World) -> None:
    world.server.delay = 0.1
    command = [sys.executable, "-m", "stepdistill", "annotate", str(world.folder / "run.yaml"), "-q"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, preexec_fn=hear_ctrl_c) as process:
        deadline = time.monotonic() + 60
        while world.server.counts["answered"] < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in error
    assert f"{world.server.counts['answered']} answers asked" in error
    assert "Run the same command to go on" in error
    answered = world.server.counts["answered"]
    assert 3 <= world.stored() == answered < ALL
    assert not (world.out / "annotations.jsonl").exists()
    world.annotate()
    assert set(world.server.seen.values()) == {1}
    assert world.stored() == ALL


def test_an_example_that_is_refused_is_named_and_asked_again_next_time(world: World) -> None:
    world.server.plan = [Fault("status", status=400, match="box a2?")]
    done = world.annotate()
    assert "Without an answer" in done.out
    assert "a2" not in world.rows()
    assert len(world.rows()) == ALL - 1
    world.server.plan = []
    world.annotate()
    assert "a2" in world.rows()


def test_a_run_annotates_by_itself_and_asks_no_more_when_started_again(world: World) -> None:
    done = world.call("run", "--json")
    assert done.code == 0, done.error
    assert [row["name"] for row in json.loads(done.out)] == ["teacher", *METHODS]
    assert json.loads(done.out)[0]["scorecard"]["value"] == 1.0
    assert world.call("run", "--json").out == done.out
    assert world.requests == ALL


def test_annotating_a_finished_run_shows_its_report_and_changes_nothing(world: World) -> None:
    world.voice.script = wrong_twice_and_unread_once
    assert world.call("run").code == 0
    before = {p: p.read_bytes() for p in world.out.rglob("*") if p.is_file() and p.name != ".lock"}
    done = world.annotate("--export", world.folder / "all.jsonl")
    assert "no answer marker: 1" in " ".join(done.out.split())
    assert "nothing was asked and nothing changed" in done.out
    places = [done.out.index(f"\n {split} ") for split in SPLITS]
    assert places == sorted(places)
    assert len((world.folder / "all.jsonl").read_text().splitlines()) == ALL
    one_line(world.call("annotate", "--reparse"), "a student has been trained", "another `out`")
    after = {p: p.read_bytes() for p in world.out.rglob("*") if p.is_file() and p.name != ".lock"}
    assert after == before
    assert world.requests == ALL


@pytest.mark.parametrize("flags", [(), ("--preview", 2), ("--reparse",)])
def test_json_is_all_that_is_printed(world: World, flags: tuple[Any, ...]) -> None:
    if flags == ("--reparse",):
        world.annotate()
    done = world.cli("annotate", world.folder / "run.yaml", "--json", *flags)
    assert (done.code, done.error) == (0, "")
    assert json.loads(done.out)


def test_progress_goes_to_stderr_and_quiet_silences_it(world: World) -> None:
    done = world.cli("annotate", world.folder / "run.yaml")
    assert "ask fake" in done.error
    assert "ask fake" not in done.out


def test_hostile_answers_are_kept_and_do_not_reach_the_terminal(world: World) -> None:
    world.voice.script = lambda box, _, n: f"\x1b[31m[bold]{box}[/bold]\x00 So the answer is 3.\x1b]0;x\x07"
    done = world.annotate()
    assert "\x1b" not in done.out
    assert world.rows()["a0"]["completion"].startswith("\x1b[31m[bold]a0")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"teacher__backend": "opnai"}, ["teacher.backend", "'opnai'", "did you mean 'openai'?"]),
        ({"teacher__modle": "x"}, ["'teacher.modle'", "did you mean 'model'?"]),
        ({"teacher__model": None}, ["backend 'openai' needs `model`"]),
        ({"teacher__draws": 3}, ["3 draws at temperature 0", "set temperature"]),
        ({"teacher__draws": 0}, ["teacher.draws", "greater than or equal to 1"]),
        ({"teacher__base_url": "localhost:8000/v1"}, ["base_url", "https://host/v1"]),
        ({"teacher__base_url": "ftp://host/v1"}, ["base_url", "https://host/v1"]),
        ({"teacher__base_url": "http://[::1/v1"}, ["base_url", "not a URL"]),
        ({"teacher__base_url": "http://me:secret@host/v1"}, ["user name or password", "key_variable"]),
        ({"teacher__extra": {"messages": [], "n": 2}}, ["extra: messages, n cannot be given"]),
        ({"teacher__api": "completions"}, ["style: text"]),
        ({"teacher__price": None, "annotate__max_cost_usd": 1}, ["max_cost_usd", "teacher.price", "'fake'"]),
        ({"annotate__max_cost_usd": 0}, ["annotate.max_cost_usd", "greater than 0"]),
        ({"annotate__splits": []}, ["annotate.splits", "at least 1"]),
        ({"annotate__splits": ["trian"]}, ["annotate.splits", "did you mean 'train'?"]),
        ({"annotate__verify": "gold"}, ["annotate.verify", "agree-with-gold"]),
        ({"teacher__demonstrations": {"n": 3}}, ["demonstrations", "2"]),
        ({"teacher__key_variable": "NO_SUCH_KEY_VARIABLE"}, ["NO_SUCH_KEY_VARIABLE is not set"]),
        ({"teacher__base_url": "https://api.openai.com/v1"}, ["OPENAI_API_KEY is not set", "api.openai.com"]),
        ({"teachers": [{"backend": "simulated"}]}, ["either `teacher` or the list `teachers`"]),
    ],
)
def test_a_mistake_gets_one_line_and_nobody_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], parts: list[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    done = world.call("annotate", **settings)
    one_line(done, *parts)
    assert "secret" not in done.error
    assert world.requests == 0
    assert not (world.out / "annotations.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (("--preview", 1, "--reparse"), ["exclude each other"]),
        (("--reparse", "--repair"), ["exclude each other"]),
    ],
)
def test_flags_that_exclude_each_other_are_refused(world: World, flags: Any, parts: list[str]) -> None:
    one_line(world.call("annotate", *flags), *parts)


def test_a_teacher_that_is_not_asked_has_no_prompt_to_show(cli: Any, run_file: Path) -> None:
    one_line(cli("annotate", run_file, "--preview", 1), "'simulated' prompts nobody")


def test_twenty_thousand_rows_are_annotated_and_equal_prompts_asked_once(world: World) -> None:
    texts = [f"How many pieces are in box {name}?" for name in list(GOLD)[:12]]
    with (world.folder / "train.jsonl").open("w") as file:
        for i in range(20_000):
            file.write(json.dumps({"id": f"r{i}", "text": texts[i % 12], "gold": None}) + "\n")
    found = json.loads(world.annotate("--json", annotate__splits=["train"]).out)
    assert (found["train"]["answers"], found["train"]["read"]) == (20_000, 20_000)
    assert found["asked"]["answered"] == 12
    assert world.requests == 12
    rows = world.rows()
    assert len(rows) == 20_000
    assert rows["r19999"]["label"] == str(GOLD[list(GOLD)[19_999 % 12]])


def test_annotating_over_http_needs_no_torch(world: World) -> None:
    code = (
        "import sys; sys.argv = ['stepdistill', *sys.argv[1:]]\n"
        "from stepdistill.cli.main import main\n"
        "try: main()\n"
        "finally: print([m for m in ('torch', 'transformers', 'datasets', 'numpy') if m in sys.modules])"
    )
    call = [sys.executable, "-c", code, "annotate", str(world.folder / "run.yaml"), "-q"]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert world.requests == ALL


def test_all_teachers_are_checked_before_the_first_is_paid(world: World) -> None:
    unpriced = {**world.teacher(), "model": "of-no-known-price", "price": None}
    priced = {**world.teacher(), "price": {"input": 1, "output": 1}}
    world.write(teachers=[priced, unpriced], annotate={"max_cost_usd": 5})
    done = world.call("annotate")
    assert (done.code, done.error.count("\n")) == (2, 1)
    assert "of-no-known-price" in done.error
    assert world.server.counts["requests"] == 0
