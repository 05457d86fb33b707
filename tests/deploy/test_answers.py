"""Closed sets are answered by scores: always a label, with probabilities, or openly not sure enough."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import stepdistill
from stepdistill.deploy import model
from stepdistill.deploy.bundle import Settings, read_bundle, seal
from stepdistill.deploy.engines import Question
from stepdistill.deploy.readout import READOUTS, softmax
from stepdistill.deploy.runtime import NO_OPTIONS, Runtime
from stepdistill.errors import ConfigError, DataError, RunFolderError, StudentError
from stepdistill.records import Example

TEXTS = ["Where is the fish?", "Where is the box?", "Where is the cow?", "Where is the whale?"]
PLACES = ["sea", "attic", "field", "sea"]
hard = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def exported(bundle: Path) -> Runtime:
    """A bundle that is open, of either format."""
    return stepdistill.load(bundle)


@pytest.fixture(scope="module")
def own(labels: Any) -> Runtime:
    """The same student in its own folder."""
    return stepdistill.load(labels.folder, "step-by-step")


def test_an_export_answers_as_the_student_does(exported: Runtime, own: Runtime) -> None:
    for found, theirs in zip(exported.predict(TEXTS, explain=True), own.predict(TEXTS, True), strict=True):
        assert (found.label, found.rationale) == (theirs.label, theirs.rationale)
        assert found.probabilities == pytest.approx(theirs.probabilities, abs=1e-4)
    assert [answer.label for answer in exported.predict(TEXTS)] == PLACES
    assert exported.explain(TEXTS[0]) == "One looks there."


@hard
@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5))
def test_whatever_is_asked_the_answer_is_a_label(exported: Runtime, texts: list[str]) -> None:
    found = exported.predict(texts)
    assert [answer.example_id for answer in found] == [str(i) for i in range(len(texts))]
    for answer in found:
        assert answer.label in ("sea", "attic", "field")
        assert tuple(answer.probabilities or ()) == exported.labels == ("sea", "attic", "field")
        assert math.fsum((answer.probabilities or {}).values()) == pytest.approx(1.0)
        assert (
            answer.confidence
            == (answer.probabilities or {})[answer.label]
            == max((answer.probabilities or {}).values())
        )
        assert (answer.text, answer.guess, answer.abstained) == (answer.label, answer.label, False)


def test_each_answer_is_its_own_whatever_stands_beside_it(
    own: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(TEXTS[: i % 4 + 1]) for i in range(11)]
    alone = [own.predict([text])[0].probabilities for text in texts]
    sizes: list[int] = []
    monkeypatch.setattr(model, "BATCH", 4)
    watched = replace(own, watch=lambda what, done, total, note="": sizes.append(done))
    together = watched.predict(texts)
    assert sizes == [4, 8, 11]
    for found, one in zip(together, alone, strict=True):
        assert found.probabilities == pytest.approx(one, abs=1e-5)


def test_a_batch_has_inputs_of_similar_length(own: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[list[int]] = []
    engine = own.model.ready().engine
    spell = type(engine).spell

    def heard(self: Any, questions: Sequence[Question]) -> Any:
        lengths.append([len(question.prompt.source) for question in questions])
        return spell(self, questions)

    monkeypatch.setattr(type(engine), "spell", heard)
    own.predict([TEXTS[0] * (i * 7 % 40 + 1) for i in range(40)])
    assert [len(batch) for batch in lengths] == [32, 8]
    assert sorted(n for batch in lengths for n in batch) == [n for batch in lengths for n in batch]


def test_below_the_threshold_the_guess_is_kept_and_no_label_given(own: Runtime, labels: Any) -> None:
    plain = own.predict(TEXTS)
    sure = max(answer.confidence or 0.0 for answer in plain)
    for answer, found in zip(
        plain, stepdistill.load(labels.folder, threshold=sure).predict(TEXTS), strict=True
    ):
        if answer.confidence == pytest.approx(sure, abs=1e-6):
            continue
        assert (found.label, found.abstained, found.guess) == (None, True, answer.guess)
        assert found.probabilities == pytest.approx(answer.probabilities)
        assert f"is below the threshold {sure:.2f}"[:-2] in str(found.reason)
    at = replace(own, settings=Settings(threshold=own.predict(TEXTS[:1])[0].confidence))
    assert at.predict(TEXTS[:1])[0].label == PLACES[0]


def test_a_bundles_own_threshold_and_temperature_are_used_and_one_given_goes_before(
    labels: Any, light: Path, tmp_path: Path
) -> None:
    for path in light.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    chosen = Settings(readout="first", temperature=4.0, threshold=1.0)
    seal(tmp_path, read_bundle(light).model_copy(update={"settings": chosen}))
    (found,) = stepdistill.load(tmp_path).predict(TEXTS[:1])
    (plain,) = stepdistill.load(light).predict(TEXTS[:1])
    assert (found.abstained, found.guess) == (True, plain.label)
    assert (found.confidence or 0.0) < (plain.confidence or 0.0)
    assert stepdistill.load(tmp_path, threshold=0.0).predict(TEXTS[:1])[0].label == PLACES[0]


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan, math.inf])
def test_a_threshold_that_is_no_probability_is_refused(labels: Any, threshold: float) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        stepdistill.load(labels.folder, threshold=threshold)


def test_threads_are_at_least_one(labels: Any) -> None:
    with pytest.raises(ConfigError, match="threads: 0"):
        stepdistill.load(labels.folder, threads=0)


def test_a_bundle_has_one_student(bundle: Path) -> None:
    assert stepdistill.load(bundle, "step-by-step").card["name"] == "step-by-step"
    with pytest.raises(RunFolderError, match=r"unknown student .finetune.\. Allowed: step-by-step"):
        stepdistill.load(bundle, "finetune")


def test_scores_are_those_of_the_answers_for_every_readout(own: Runtime) -> None:
    found = own.scores(TEXTS)
    assert tuple(found) == READOUTS
    for readout, rows in found.items():
        asked = replace(own, settings=Settings(readout=readout, temperature=2.0)).predict(TEXTS)
        for row, answer in zip(rows, asked, strict=True):
            assert tuple((answer.probabilities or {}).values()) == pytest.approx(softmax(row, 2.0), abs=1e-6)


def test_options_that_stand_twice_are_one_answer(choices: Any) -> None:
    student = stepdistill.load(choices.folder)
    twice = Example("1", choices.rows[0]["question"], options=("sea", "attic", "sea", "field"))
    assert student.candidates(twice) == ("sea", "attic", "field")
    assert set(student.predict([twice])[0].probabilities or {}) == {"sea", "attic", "field"}
    assert (student.closed, student.labels) == (True, ())


def test_a_question_without_options_has_no_answer_and_is_in_nobodys_way(choices: Any) -> None:
    student = stepdistill.load(choices.folder, explain=True)
    asked = student.read_input(choices.rows[:1], "rows")
    found = student.predict([asked[0], "Where is the cow?", asked[0]], explain=True)
    assert [answer.label for answer in found] == ["sea", None, "sea"]
    assert (found[1].reason, found[1].probabilities, found[1].abstained) == (NO_OPTIONS, None, False)
    student.check("Where is the cow?", explain=True)
    with pytest.raises(DataError, match=NO_OPTIONS):
        student.scores(["Where is the cow?"])


def limited(light: Path, folder: Path, positions: int) -> Runtime:
    """A bundle of a model that can place so few tokens, for CTranslate2, which looks after none."""
    for path in light.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    seal(folder, read_bundle(light).model_copy(update={"positions": positions}))
    return stepdistill.load(folder)


@pytest.mark.parametrize("explain", [False, True])
def test_a_text_that_is_too_long_is_refused_before_anything_is_asked(
    light: Path, tmp_path: Path, explain: bool
) -> None:
    student = limited(light, tmp_path, 64)
    assert student.predict(TEXTS, explain)[0].label == "sea"
    long = TEXTS[0] * 20
    for ask in (lambda: student.predict([*TEXTS, long], explain), lambda: student.check(long, explain)):
        with pytest.raises(StudentError, match=r"64 positions, and an input of \d+ tokens needs") as caught:
            ask()
        assert "\n" not in str(caught.value)
    student.check(TEXTS[0], explain)


def test_several_threads_get_each_their_own_answers(exported: Runtime) -> None:
    asked = [TEXTS[i % 4] for i in range(24)]
    expected = [exported.predict([text])[0].probabilities for text in TEXTS]
    found: dict[int, Any] = {}

    def work(i: int) -> None:
        found[i] = exported.predict([asked[i]])[0].probabilities

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(len(asked)):
        assert found[i] == pytest.approx(expected[i % 4], abs=1e-6)


def test_threads_that_come_first_load_the_model_once(light: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    plain = model.open_engine

    def counted(folder: Path, *rest: Any) -> Any:
        opened.append(folder)
        return plain(folder, *rest)

    monkeypatch.setattr(model, "open_engine", counted)
    student = stepdistill.load(light)
    assert opened == []
    threads = [threading.Thread(target=student.warm) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replace(student, settings=Settings(temperature=3.0)).predict(TEXTS[:1])
    assert opened == [light]
