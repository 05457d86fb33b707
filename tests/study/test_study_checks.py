"""What is wrong with a study is told in one line before any trial starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from studies import small_study

from stepdistill.errors import StepdistillError
from stepdistill.study.whole import check_study, gathered

TASK = """
name: tiny
instruction: Decide.
input: "{q}"
answer: {kind: label, column: a, labels: [approve, ask]}
data: {files: {%s}}
"""


@pytest.mark.parametrize(
    ("splits", "run", "methods", "message"),
    [
        ("test: test.jsonl", {}, ["finetune"], "no 'train' examples"),
        ("train: train.jsonl", {}, ["finetune"], "no 'test' examples"),
        ("", {}, ["step-by-step+human"], "tiny has no rationales of people"),
        ("", {"evaluate": {"slices": ["chanel"]}}, ["finetune"], "chanel"),
        ("", {"student": {"model": "./no/such"}}, ["finetune"], r"student.model: ./no/such: no such file"),
        ("", {"student": {"model": "no/such.gguf"}}, ["finetune"], "no such file"),
    ],
)
def test_what_a_run_would_refuse_is_refused_before(
    tmp_path: Path, splits: str, run: Mapping[str, Any], methods: list[str], message: str
) -> None:
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text('{"q": "a letter", "a": "ask"}\n' * 4)
    file = tmp_path / "task.yaml"
    file.write_text(TASK % (splits or "train: train.jsonl, test: test.jsonl"))
    study = small_study(tmp_path / "study", {"task": str(file), "data": {}, **run}, methods=methods)
    with pytest.raises(StepdistillError, match=message) as caught:
        check_study(study)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "study").exists()


def test_results_of_an_earlier_state_do_not_stay_where_no_trial_is_finished(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("{}\n")
    assert gathered(tmp_path, []) == []
    assert not (tmp_path / "results.jsonl").exists()
