"""The engine against its flat twin, `examples/flat_loop.py`: the same losses and weights, step by step."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from stepdistill.student.encode import tokens
from stepdistill.student.journal import Journal
from stepdistill.student.model import Student
from stepdistill.student.order import StepSampler
from stepdistill.student.train import Lesson, train

STEPS, N, EPOCHS, BATCH, SEED = 20, 18, 4, 4, 7
"""Five steps an epoch, the last of them with two examples."""
RELATIVE, ABSOLUTE = 1e-5, 1e-5
"""Of a loss, and of a weight, in float32: sums are taken in another order."""


def flat_rows(examples: Any, annotations: Any) -> list[dict[str, str]]:
    """Examples as the script takes them."""
    return [{"text": e.text, "label": e.label, "rationale": annotations[e.id].rationale} for e in examples]


@pytest.fixture(scope="module")
def flat() -> ModuleType:
    """The script, as a module."""
    path = Path(__file__).parents[2] / "examples" / "flat_loop.py"
    spec = importlib.util.spec_from_file_location("flat_loop", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def engine(
    make_student: Callable[..., Student],
    lesson: Callable[..., Lesson],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Student, np.ndarray[Any, Any]]]:
    """Train as the package does; gives the student and both tasks' losses of each step, (steps, 2)."""

    def run(family: str, **settings: Any) -> tuple[Student, np.ndarray[Any, Any]]:
        losses, add = [], Journal.add

        def noted(self: Journal, loss: float, sums: list[float], totals: list[float]) -> None:
            losses.append([part / total if total else 0.0 for part, total in zip(sums, totals, strict=True)])
            add(self, loss, sums, totals)

        monkeypatch.setattr(Journal, "add", noted)
        student = make_student(family)
        given = lesson(n=N, epochs=EPOCHS, batch_size=BATCH, seed=SEED, learning_rate=1e-3, **settings)
        train(student, given, tmp_path / "student")
        return student, np.array(losses)

    return run


@pytest.fixture
def twin(
    flat: ModuleType, make_student: Callable[..., Student], make_toy: Any, lesson: Callable[..., Lesson]
) -> Callable[..., tuple[Student, np.ndarray[Any, Any]]]:
    """Train as the script does, on the batches that the package's order gives."""

    def run(family: str, weight: float, warmup: int) -> tuple[Student, np.ndarray[Any, Any]]:
        student = make_student(family)
        rows = flat_rows(*make_toy(N))
        targets = lesson(n=N).targets
        lengths = np.array([tokens(student.encoder.item(each)) for each in targets], np.int32)
        sampler, batches = StepSampler(lengths, BATCH, BATCH, seed=SEED), []
        for epoch in range(EPOCHS):
            sampler.set_epoch(epoch)
            batches += [[rows[i] for i in step] for step in sampler.steps()]
        torch.manual_seed(0)
        steps = flat.losses(student.model, student.tokenizer, family, batches, 1e-3, weight, warmup)
        return student, np.array(list(steps))

    return run


@pytest.mark.parametrize("family", ["encoder-decoder", "causal"])
@pytest.mark.parametrize("micro", [4, 1])
def test_twenty_steps_give_the_losses_and_weights_of_the_flat_loop(
    engine: Any, twin: Any, family: str, micro: int
) -> None:
    ours, losses = engine(family, warmup_steps=3, micro_batch_size=micro, **{"lambda": 0.5})
    theirs, expected = twin(family, 0.5, 3)
    assert losses.shape == expected.shape == (STEPS, 2)
    assert losses[-1].sum() < losses[0].sum() - 0.1
    np.testing.assert_allclose(losses, expected, rtol=RELATIVE)
    weights, wanted = ours.model.state_dict(), theirs.model.state_dict()
    assert weights.keys() == wanted.keys()
    for name, weight in wanted.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=ABSOLUTE)


def test_another_lambda_gives_other_weights(twin: Any) -> None:
    one, other = (twin("encoder-decoder", weight, 0)[0].model.state_dict() for weight in (0.5, 1.0))
    assert max((one[name] - other[name]).abs().max().item() for name in one) > 100 * ABSOLUTE


def test_the_script_trains_a_model_of_a_folder_on_exported_annotations(
    flat: ModuleType,
    make_toy: Any,
    llama_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [{**row, "gold": row["label"], "split": "train"} for row in flat_rows(*make_toy(6))]
    rows += [{**rows[0], "split": "test"}, {**rows[0], "gold": None}, {**rows[1], "rationale": None}]
    path = tmp_path / "annotated.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["--data", str(path), "--model", str(llama_folder), "--epochs", "5", "--batch-size", "7"]
    monkeypatch.setattr("sys.argv", ["flat_loop.py", *given])
    flat.main()
    # Seven rows are left: that of the test split is not trained on, nor that without a gold label.
    assert capsys.readouterr().out.startswith("step 5/5: label ")
