"""A run file is a value that is checked when it is made; what is wrong is said in one line."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stepdistill.config import RunConfig, check, flatten, load_run, read_yaml
from stepdistill.errors import ConfigError, DataError
from stepdistill.task.schema import TaskSpec

SMALL = "task: svamp\nstudent: {model: 'scratch:'}\nout: runs/x\n"
Load = Callable[..., RunConfig]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Loads a run file of this text, by default the smallest one, with overrides."""

    def loader(*overrides: str, text: str | bytes = SMALL) -> RunConfig:
        path = tmp_path / "run.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_run(path, overrides)

    return loader


def message_of(load: Load, *overrides: str, text: str | bytes = SMALL) -> str:
    with pytest.raises((ConfigError, DataError)) as caught:
        load(*overrides, text=text)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("tsk: svamp", ["unknown key 'tsk'", "did you mean 'task'"]),
        ("train: {epoch: 3}", ["'train.epoch'", "did you mean 'epochs'", "batch_size"]),
        ("train: {lambda_: 1.0}", ["'train.lambda_'", "did you mean 'lambda'"]),
        ("data: {limit: {trian: 3}}", ["'data.limit.trian'", "did you mean 'train'"]),
        ("zzz: 1", ["unknown key 'zzz'", "Allowed: annotate, data, methods, out, seed, student, task"]),
        ("teacher: {completions: {tran: a}}", ["teacher.completions", "'tran'", "did you mean 'train'"]),
        ("1: 2", ["1: Keys should be strings"]),
        ("train: {epochs: many}", ["train.epochs", "integer", "'many'"]),
        ("train: {epochs: 2.5}", ["train.epochs", "integer", "2.5"]),
        ("train: {epochs: true}", ["train.epochs", "integer", "True"]),
        ("train: {epochs: 0}", ["train.epochs", "greater than or equal to 1", "0"]),
        ("train: {epochs: null}", ["train.epochs", "None"]),
        ("train: {learning_rate: 0}", ["train.learning_rate", "greater than 0"]),
        ("train: {learning_rate: .nan}", ["train.learning_rate", "nan"]),
        # A defect when written: nan was refused and infinity was not.
        ("train: {learning_rate: .inf}", ["train.learning_rate", "inf"]),
        ("train: {lambda: .inf}", ["train.lambda", "inf"]),
        ("train: {lambda: -1}", ["train.lambda", "greater than or equal to 0"]),
        ("train: {batch_size: 16, micro_batch_size: 5}", ["batch_size 16 is not a multiple of 5"]),
        ("train: {precision: bf16}", ["train.precision", "'bf16'", "did you mean 'bfloat16'", "float32"]),
        ("teacher: {backend: opnai}", ["teacher.backend", "'opnai'", "did you mean 'openai'", "recorded"]),
        ("teacher: {backend: openai}", ["teacher", "'openai'", "needs `model`"]),
        # A defect when written: the line break came through.
        ('teacher: {backend: "re\\ncorded"}', ["teacher.backend", "did you mean 'recorded'"]),
        ("teacher: {error_rate: 1.5}", ["teacher.error_rate", "less than or equal to 1"]),
        ("methods: []", ["methods", "at least 1"]),
        ("methods: finetune", ["methods", "'finetune'"]),
        ("methods: [distill, finetune, distill]", ["methods", "distill", "twice"]),
        ("seed: -1", ["seed", "greater than or equal to 0"]),
        ("seed: 2147483648", ["seed", "less than 2147483648"]),
        ("data: 5", ["data", "5"]),
        ("data: {limit: {train: 0}}", ["data.limit.train", "greater than or equal to 1"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_allowed(load: Load, more: str, said: list[str]) -> None:
    message = message_of(load, text=f"{SMALL}{more}\n")
    assert [part for part in ["run.yaml", *said] if part not in message] == [], message


def test_a_missing_key_is_named_and_further_faults_are_counted(load: Load) -> None:
    message = message_of(load, text="task: svamp\n")
    assert message.endswith("run.yaml: the key 'student' is missing; add it (and 1 more)")
    assert message_of(load, text="task: t\nout: o\n").endswith("'student' is missing; add it")


@pytest.mark.parametrize(
    "student", ["{model: 'scratch:', scratch: {d_model: 100, heads: 3}}", "{model: m, scratch: {heads: 0}}"]
)
def test_sizes_that_do_not_fit_are_refused(load: Load, student: str) -> None:
    assert "heads" in message_of(load, text=f"task: t\nout: o\nstudent: {student}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{SMALL}task: cqa\n", ["line 4", "the key 'task' stands twice"]),
        (f"{SMALL}train:\n  epochs: 3\n  patience: 1\n  epochs: 5\n", ["line 7", "'epochs' stands twice"]),
        (f"{SMALL}train: [1, 2\n", ["line 5"]),
        (f"{SMALL}\ttrain: 1\n", ["line 4"]),
        ("a: b: c", ["line 1", "mapping values are not allowed"]),
        ("- 1\n- 2\n", ["a mapping with keys is expected", "[1, 2]"]),
        ("", ["a mapping with keys is expected", "None"]),
        ("just words", ["a mapping with keys is expected", "'just words'"]),
        ("a: \x00", ["run.yaml"]),
        ("[" * 700, ["nested too deeply"]),
        ("a: *b", ["line 1", "undefined alias"]),
        ("a: !!python/object/apply:os.system ['true']", ["line 1", "could not determine a constructor"]),
        # A defect when written: PyYAML raises a ValueError of its own for the next three.
        (f"{SMALL}seed: 2020-13-45\n", ["run.yaml"]),
        (f"{SMALL}seed: 0b_\n", ["run.yaml"]),
        (f"{SMALL}data: !!map text\n", ["run.yaml"]),
        (b"task: caf\xe9\n", ["run.yaml", "not UTF-8", "byte 9"]),
    ],
)
def test_malformed_yaml_is_one_line_with_its_place(load: Load, text: str | bytes, said: list[str]) -> None:
    message = message_of(load, text=text)
    assert [part for part in ["run.yaml", *said] if part not in message] == [], message


def test_an_absent_run_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.yaml: no such file"):
        load_run(tmp_path / "absent.yaml")


@settings(max_examples=100, deadline=None)
@given(text=st.text("ab01 :-[]{},'\"\n&*!#|>?%@`.~=_\t", max_size=60))
def test_no_text_raises_anything_but_an_error_of_ours(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text, encoding="utf-8")
    message = ""
    try:
        read_yaml(path)
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("seed=3", "seed", 3),
        ("train.epochs=2", "train.epochs", 2),
        (" train.epochs = 2", "train.epochs", 2),
        ("train.lambda=0.5", "train.lambda", 0.5),
        ("train.learning_rate=1e-4", "train.learning_rate", 1e-4),
        ("data.limit.train=40", "data.limit.train", 40),
        ("data.limit={test: 7}", "data.limit.test", 7),
        ("methods=[finetune, step-by-step]", "methods", ["finetune", "step-by-step"]),
        ("train={epochs: 5}", "train.epochs", 5),
        ("data.root=/a=b", "data.root", "/a=b"),
        ("data.root=null", "data.root", None),
        ("teacher.completions.train=a.jsonl", "teacher.completions.train", "a.jsonl"),
        ("out=runs/other", "out", "runs/other"),
    ],
)
def test_an_override_sets_any_key_and_leaves_the_others(
    load: Load, override: str, key: str, value: object
) -> None:
    plain = {k: v for k, v in flatten(load().plain()).items() if not key.startswith(f"{k}.")}
    assert flatten(load(override).plain()) == plain | {key: value}


def test_an_override_replaces_a_mapping_as_a_whole(load: Load) -> None:
    text = f"{SMALL}train: {{epochs: 7, patience: 1}}\n"
    assert load("train={epochs: 5}", text=text).train.patience == 3
    assert load("train.epochs=5", text=text).train.patience == 1


def test_of_two_overrides_the_last_wins(load: Load) -> None:
    assert load("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.epochs", ["--set train.epochs", "key.key=value"]),
        ("=3", ["--set =3", "key.key=value"]),
        ("train.epoch=3", ["'train.epoch'", "did you mean 'epochs'"]),
        ("sed=3", ["'sed'", "did you mean 'seed'"]),
        ("seed.x=3", ["seed", "integer"]),
        ("seed=[1", ["--set", "seed=[1", "not YAML"]),
        # A defect when written: tracebacks, as in the file.
        ("seed=2020-13-45", ["seed"]),
        ("seed=" + "[" * 700, ["seed", "nested too deeply"]),
        ("train={epochs: 1, epochs: 2}", ["stands twice"]),
        ("seed=", ["seed", "None"]),
    ],
)
def test_a_wrong_override_is_refused(load: Load, override: str, said: list[str]) -> None:
    message = message_of(load, override)
    assert [part for part in said if part not in message] == [], message


@pytest.mark.parametrize(
    ("given_keys", "weight"),
    [
        ("", 1.0),
        ("lambda: 0.5", 0.5),
        ("lambda: 0", 0.0),
        ("alpha: 0.5", 1.0),
        ("alpha: 0.25", 3.0),
        ("alpha: 1.0", 0.0),
        ("lambda: 2, alpha: null", 2.0),
    ],
)
def test_alpha_of_the_authors_is_converted_to_lambda(load: Load, given_keys: str, weight: float) -> None:
    assert load(text=f"{SMALL}train: {{{given_keys}}}\n").train.rationale_weight == pytest.approx(weight)


@pytest.mark.parametrize("given_keys", ["lambda: 2.0, alpha: 0.5", "alpha: 0", "alpha: 1.1"])
def test_both_weights_or_an_impossible_one_are_refused(load: Load, given_keys: str) -> None:
    assert "alpha" in message_of(load, text=f"{SMALL}train: {{{given_keys}}}\n")


@pytest.mark.parametrize("override", ["out=elsewhere", "data.root=/data", "methods=[distill]"])
def test_where_files_lie_and_which_methods_are_asked_do_not_change_the_identity(
    load: Load, override: str
) -> None:
    assert load(override).digest() == load().digest()
    assert load(override).identity() == load().identity()


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "task=cqa",
        "student.model=gpt2",
        "train.epochs=9",
        "train.lambda=2",
        "train.labels=teacher",
        "teacher.error_rate=0.1",
        "data.limit.train=5",
        "data.unlabelled=asdiv",
        "data.source=hub",
    ],
)
def test_what_results_depend_on_changes_the_identity(load: Load, override: str) -> None:
    assert load(override).digest() != load().digest()


def test_a_configuration_written_out_in_full_reads_back_equal(load: Load) -> None:
    config = load("train.lambda=0.5", "methods=[distill]")
    text = yaml.safe_dump(config.plain())
    assert load(text=text) == config


def test_a_configuration_is_frozen(load: Load) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().seed = 1  # type: ignore[misc]


def template(name: str) -> tuple[str, dict[str, Any]]:
    text = (resources.files("stepdistill.cli") / "templates" / name).read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


@pytest.mark.parametrize(("name", "model"), [("run.yaml", RunConfig), ("task.yaml", TaskSpec)])
def test_a_template_is_valid_as_it_stands(name: str, model: type[BaseModel]) -> None:
    assert check(model, template(name)[1], name)


def test_the_run_template_names_every_key_with_its_default_value() -> None:
    small = {"task": "t", "out": "o", "student": {"model": "m"}}
    defaults, shown = flatten(check(RunConfig, small, "small").plain()), flatten(template("run.yaml")[1])
    assert set(defaults) - set(shown) == {"teacher.completions"}
    own = {"task", "out", "student.model"}
    assert {k: v for k, v in shown.items() if k in defaults and k not in own and defaults[k] != v} == {}


def test_the_task_template_names_every_key_of_an_answer() -> None:
    text, _ = template("task.yaml")
    wanted = {"name", "instruction", "input", "id", "answer", "data", "demonstrations"}
    wanted |= {"kind", "column", "marker", "labels", "codes", "options", "tolerance", "read", "files", "hub"}
    assert [key for key in sorted(wanted) if f"{key}:" not in text] == []
