"""What cannot be run by CTranslate2 is refused in one line, and what can be needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ctranslate2
import pytest

from stepdistill.deploy.bundle import read_bundle
from stepdistill.deploy.engines import open_engine
from stepdistill.errors import MissingExtraError, StudentError


@pytest.fixture
def copy(light: Path, tmp_path: Path) -> Path:
    """A bundle in CTranslate2's format that may be changed."""
    return Path(shutil.copytree(light, tmp_path / "it"))


def refused(folder: Path, light: Path, **changes: Any) -> str:
    bundle = read_bundle(light).model_copy(update=changes)
    with pytest.raises(StudentError) as caught:
        open_engine(folder, bundle, threads=1)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "decoder_start_token"])
def test_a_token_that_the_library_dies_of_is_named(copy: Path, light: Path, name: str) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, name: None}))
    assert name in refused(copy, light)


@pytest.mark.parametrize("text", ["[", "{}", "[1]", '["a", "a"]', None])
def test_a_vocabulary_that_is_none_is_refused(copy: Path, light: Path, text: str | None) -> None:
    path = copy / "shared_vocabulary.json"
    path.unlink() if text is None else path.write_text(text)
    assert "shared_vocabulary.json" in refused(copy, light)


def test_a_damaged_model_is_refused_with_the_librarys_words(copy: Path, light: Path) -> None:
    whole = (copy / "model.bin").read_bytes()
    (copy / "model.bin").write_bytes(whole[: len(whole) // 2])
    assert "export again" in refused(copy, light)


def test_a_precision_that_is_unknown_is_refused(light: Path) -> None:
    assert "did you mean 'int8'" in refused(light, light, precision="int88")


@pytest.mark.parametrize("version", ["4.8.4", "4.8", "3.24.0"])
def test_a_library_whose_loader_is_weak_is_refused(
    light: Path, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctranslate2, "__version__", version)
    assert "4.8.5 or later" in refused(light, light)


@pytest.mark.parametrize("version", ["4.8.5", "4.10.0", "5.0"])
def test_later_ones_are_taken(light: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctranslate2, "__version__", version)
    open_engine(light, read_bundle(light), threads=1)


def test_a_library_that_is_missing_is_named_with_its_extra(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ctranslate2", None)
    with pytest.raises(MissingExtraError, match=r"stepdistill\[ctranslate2\]"):
        open_engine(light, read_bundle(light))


def test_where_the_processor_has_no_bfloat16_it_says_that_it_computes_in_float32(
    light: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctranslate2, "get_supported_compute_types", lambda _: {"float32", "int8"})
    bundle = read_bundle(light).model_copy(update={"precision": "bfloat16"})
    assert open_engine(light, bundle, threads=1).computes == "float32"


def test_neither_torch_nor_transformers_is_reached(light: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from stepdistill.deploy.bundle import read_bundle\n"
        "from stepdistill.deploy.engines import Prompt, Question, open_engine\n"
        f"folder = Path({str(light)!r}); engine = open_engine(folder, read_bundle(folder), 1)\n"
        "prompt = Prompt((5, 6, 1)); questions = [Question(prompt, ((7, 1), (8, 9, 1)))]\n"
        "engine.first(questions), engine.spell(questions), engine.write([prompt], 3, 'stop')\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
