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

from stepdistill.config import RunConfig, TrainConfig, check, flatten, load_run, load_study, read_yaml
from stepdistill.config.train import RECIPES
from stepdistill.errors import ConfigError, DataError
from stepdistill.task.schema import TaskSpec

EXAMPLES = Path(__file__).parents[2] / "examples"

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
        ("zzz: 1", ["unknown key 'zzz'", "Allowed: annotate, data, evaluate, methods, out, seed, student"]),
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
        ("train: {lambda: -1}", ["train.lambda: -1 is neither a number of 0 or more nor `auto`"]),
        ("train: {lambda: atuo}", ["train.lambda: 'atuo' is neither", "`auto`"]),
        ("train: {lambda: true}", ["train.lambda", "True"]),
        ("train: {batch_size: 16, micro_batch_size: 5}", ["batch_size 16 is not a multiple of 5"]),
        ("train: {recipe: papr}", ["train.recipe", "'papr'", "did you mean 'paper'"]),
        ("train: {recipe: [paper]}", ["train.recipe", "Allowed: paper"]),
        ("train: {recipe: paper, micro_batch_size: 24}", ["batch_size 64 is not a multiple of 24"]),
        ("train: {steps: 0}", ["train.steps", "greater than or equal to 1"]),
        ("train: {labels: golden}", ["train.labels", "did you mean 'gold'", "gold-else-teacher, teacher"]),
        (
            "train: {rationales: shufled}",
            ["train.rationales", "did you mean 'shuffled'", "filler, human, none"],
        ),
        ("train: {rationale_share: 0}", ["train.rationale_share", "greater than 0"]),
        ("train: {rationale_share: 25}", ["train.rationale_share", "less than or equal to 1", "25"]),
        (
            "train: {rationales_per_example: 0}",
            ["train.rationales_per_example", "greater than or equal to 1"],
        ),
        ("train: {test_rationales: techer}", ["train.test_rationales", "did you mean 'teacher'", "student"]),
        ("train: {weights: vote}", ["train.weights", "did you mean 'votes'", "equal"]),
        ("train: {prefix: decodr}", ["train.prefix", "did you mean 'decoder'", "encoder"]),
        ("train: {too_long: cut}", ["train.too_long", "'cut'", "drop, error"]),
        ("train: {max_target_tokens: 1}", ["train.max_target_tokens", "greater than or equal to 2"]),
        ("train: {evaluate_every: 0}", ["train.evaluate_every", "greater than or equal to 1"]),
        ("train: {device: cdua}", ["train.device", "did you mean 'cuda'", "auto, cpu"]),
        ("train: {workers: -1}", ["train.workers", "greater than or equal to 0"]),
        ("train: {report_to: wandb}", ["train.report_to", "list", "'wandb'"]),
        (
            "train: {report_to: [wnadb]}",
            ["train.report_to", "did you mean 'wandb'", "mlflow, tensorboard, trackio"],
        ),
        ("train: {group_by_length: lengths}", ["train.group_by_length", "boolean"]),
        ("train: {precision: bf16}", ["train.precision", "'bf16'", "did you mean 'bfloat16'", "float32"]),
        ("teacher: {backend: opnai}", ["teacher.backend", "'opnai'", "did you mean 'openai'", "recorded"]),
        ("teacher: {backend: openai}", ["teacher", "'openai'", "needs `model`"]),
        # A defect when written: the line break came through.
        ('teacher: {backend: "re\\ncorded"}', ["teacher.backend", "did you mean 'recorded'"]),
        ("teacher: {error_rate: 1.5}", ["teacher.error_rate", "less than or equal to 1"]),
        ("evaluate: {explain: -1}", ["evaluate.explain", "greater than or equal to 0"]),
        ("evaluate: {slice: [a]}", ["'evaluate.slice'", "did you mean 'slices'"]),
        ("evaluate: {slices: [a, b, a]}", ["slices: a stands there twice"]),
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
    ("lora", "said"),
    [
        ("{rnk: 3}", ["'student.lora.rnk'", "did you mean 'rank'", "alpha, dropout"]),
        ("{rank: 0}", ["student.lora.rank", "greater than or equal to 1"]),
        ("{alpha: 0}", ["student.lora.alpha", "greater than 0"]),
        ("{dropout: 1}", ["student.lora.dropout", "less than 1"]),
        ("true", ["student.lora", "dictionary", "True"]),
    ],
)
def test_lora_is_off_or_a_mapping_of_sizes(load: Load, lora: str, said: list[str]) -> None:
    message = message_of(load, text=f"task: t\nout: o\nstudent: {{model: m, lora: {lora}}}\n")
    assert [part for part in said if part not in message] == [], message
    assert load("student.lora={}").student.lora == load("student.lora={rank: 16}").student.lora
    assert load().student.lora is None


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


def test_lambda_can_be_left_to_the_gradients(load: Load) -> None:
    assert load("train.lambda=auto").train.rationale_weight == "auto"
    assert "lambda" in message_of(load, "train.lambda=auto", "train.alpha=0.5")
    assert load("train.lambda=auto").digest() != load().digest()


def test_the_recipe_of_the_paper_has_the_papers_numbers(load: Load) -> None:
    train = load("train.recipe=paper").train
    assert (train.learning_rate, train.batch_size, train.steps) == (5e-5, 64, 10_000)
    assert (train.max_input_tokens, train.evaluate_every) == (1024, 250)
    assert TrainConfig(recipe="paper") == train


def test_a_recipe_is_where_settings_begin_and_what_is_given_goes_before_it(load: Load) -> None:
    given = load("train={batch_size: 8, steps: null, recipe: paper, patience: 7}").train
    assert (given.batch_size, given.steps, given.patience) == (8, 10_000, 7)
    assert given.learning_rate == 5e-5
    rest = set(TrainConfig.model_fields) - set(RECIPES["paper"]) - {"recipe", "patience"}
    plain = TrainConfig()
    assert [name for name in rest if getattr(given, name) != getattr(plain, name)] == []


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_reads_back_equal_from_what_is_written_beside_the_weights(load: Load, name: str) -> None:
    config = load(f"train.recipe={name}", "train.batch_size=4")
    assert load(text=yaml.safe_dump(config.plain())) == config
    assert set(RECIPES[name]) <= set(TrainConfig.model_fields)


def test_trackers_are_a_list(load: Load) -> None:
    assert load("train.report_to=[tensorboard, wandb]").train.report_to == ("tensorboard", "wandb")
    assert load().train.report_to == ()


@pytest.mark.parametrize(
    "override",
    [
        "out=elsewhere",
        "data.root=/data",
        "evaluate.explain=0",
        "evaluate.probabilities=false",
        "evaluate.slices=[channel]",
        "methods=[distill]",
        "train.gradient_checkpointing=true",
        "train.max_input_tokens=2000",
        "train.micro_batch_size=4",
        "train.report_to=[wandb]",
        "train.save_every=2",
        "train.workers=2",
    ],
)
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
        "train.recipe=paper",
        "train.steps=7",
        "train.rationales=shuffled",
        "train.rationale_share=0.25",
        "train.rationales_per_example=2",
        "train.weights=votes",
        "train.prefix=decoder",
        "train.too_long=drop",
        "train.group_by_length=false",
        "train.evaluate_every=5",
        "student.lora={rank: 4}",
        "teacher.error_rate=0.1",
        "data.limit.train=5",
        "data.unlabelled=asdiv",
        "data.source=hub",
    ],
)
def test_what_results_depend_on_changes_the_identity(load: Load, override: str) -> None:
    assert load(override).digest() != load().digest()


def test_how_predictions_are_looked_at_is_no_part_of_what_a_run_is(load: Load) -> None:
    assert not [key for key in load().identity() if key.startswith("evaluate")]


def test_the_recipe_counts_in_the_file_that_init_writes(tmp_path: Path) -> None:
    template = tmp_path / "run.yaml"
    template.write_text(resources.files("stepdistill.cli").joinpath("templates/run.yaml").read_text())
    train = load_run(template, ["train.recipe=paper"]).train
    assert {key: getattr(train, key) for key in RECIPES["paper"]} == RECIPES["paper"]


def test_lambda_auto_is_measured_by_micro_batches(load: Load) -> None:
    assert load("train.micro_batch_size=4").digest() == load().digest()
    auto = "train.lambda=auto"
    assert load(auto, "train.micro_batch_size=4").digest() != load(auto).digest()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_every_example_can_be_read(path: Path) -> None:
    if "run" in read_yaml(path):
        assert load_study(path).all_grids
    else:
        assert load_run(path).methods


@pytest.mark.parametrize("key", ["train.max_input_tokens", "train.max_target_tokens"])
def test_limits_choose_the_examples_where_what_is_too_long_is_dropped(load: Load, key: str) -> None:
    assert load(f"{key}=99").digest() == load().digest()
    drop = "train.too_long=drop"
    assert load(drop, f"{key}=99").digest() != load(drop).digest()


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
    # Null is the default of what a recipe sets, too.
    own = {"task", "out", "student.model"}
    own |= {key for recipe in RECIPES.values() for name in recipe if shown[key := f"train.{name}"] is None}
    assert {k: v for k, v in shown.items() if k in defaults and k not in own and defaults[k] != v} == {}


def test_the_task_template_names_every_key_of_an_answer() -> None:
    text, _ = template("task.yaml")
    wanted = {"name", "instruction", "input", "id", "answer", "data", "demonstrations"}
    wanted |= {"kind", "column", "marker", "labels", "codes", "options", "tolerance", "read", "files", "hub"}
    assert [key for key in sorted(wanted) if f"{key}:" not in text] == []
