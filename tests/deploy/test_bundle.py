"""A bundle is opened only where every file is the one that was exported."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepdistill.deploy.bundle import (
    Bundle,
    Settings,
    Tokens,
    digest_of,
    is_bundle,
    read_bundle,
    seal,
)
from stepdistill.errors import ConfigError, DataError, RunFolderError, StepdistillError

PLAIN = Bundle(
    format="ctranslate2",
    precision="int8",
    card={"name": "finetune"},
    tokens=Tokens(eos=1, pad=0),
    stepdistill="0.1.0",
)
FILES = {"model.bin": b"\x00weights\xff" * 99, "tokenizer.json": b"{}", "onnx/decoder.onnx": b"deep"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sealed bundle of a few files, one of them in a folder of its own."""
    home = tmp_path / "bundle"
    for name, content in FILES.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(content)
    seal(home, PLAIN)
    return home


def edited(folder: Path, **changes: Any) -> None:
    """The manifest with other values."""
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_sealed_bundle_is_read_as_it_was_written(folder: Path) -> None:
    found = read_bundle(folder)
    assert is_bundle(folder)
    assert set(found.files) == set(FILES)
    assert found.model_copy(update={"files": {}}) == PLAIN
    assert seal(folder, found) == found
    assert not is_bundle(folder / "onnx")


def test_the_model_card_may_be_written_and_edited_afterwards(folder: Path) -> None:
    (folder / "README.md").write_text("# mine")
    assert read_bundle(folder) == read_bundle(folder)


def test_settings_come_back_as_they_were(folder: Path) -> None:
    chosen = Settings(readout="first", temperature=1.7, threshold=0.8)
    seal(folder, PLAIN.model_copy(update={"settings": chosen}))
    assert read_bundle(folder).settings == chosen


def cut(folder: Path) -> None:
    (folder / "model.bin").write_bytes(FILES["model.bin"][:-1])


def change(folder: Path) -> None:
    (folder / "model.bin").write_bytes(FILES["model.bin"][:-1] + b"\xfe")


def change_below(folder: Path) -> None:
    (folder / "onnx" / "decoder.onnx").write_bytes(b"dEep")


def lose(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def add(folder: Path) -> None:
    (folder / "onnx" / "custom_op.so").write_bytes(b"hostile")


def link(folder: Path) -> None:
    (folder / "model.bin").rename(folder.parent / "model.bin")
    (folder / "model.bin").symlink_to(folder.parent / "model.bin")


def link_a_folder(folder: Path) -> None:
    (folder / "onnx").rename(folder.parent / "onnx")
    (folder / "onnx").symlink_to(folder.parent / "onnx")


def add_a_linked_folder(folder: Path) -> None:
    (folder / "more").symlink_to("/")


def link_to_nothing(folder: Path) -> None:
    (folder / "more").symlink_to("nowhere")


def link_the_manifest(folder: Path) -> None:
    (folder / "bundle.json").rename(folder.parent / "elsewhere.json")
    (folder / "bundle.json").symlink_to(folder.parent / "elsewhere.json")


def put_a_pipe(folder: Path) -> None:
    (folder / "model.bin").unlink()
    os.mkfifo(folder / "model.bin")


def put_a_folder(folder: Path) -> None:
    (folder / "model.bin").unlink()
    (folder / "model.bin").mkdir()


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (cut, r"model\.bin: is not the file that was exported"),
    (change, r"model\.bin: is not the file that was exported"),
    (change_below, r"decoder\.onnx: is not the file that was exported"),
    (lose, r"tokenizer\.json: the file is missing"),
    (add, r"custom_op\.so: the file is not of this bundle"),
    (link, r"model\.bin: is not the file that was exported"),
    (link_a_folder, r"decoder\.onnx: the file is missing"),
    (add_a_linked_folder, "more: the file is not of this bundle"),
    (link_to_nothing, "more: the file is not of this bundle"),
    (link_the_manifest, r"bundle\.json: is a link"),
    (put_a_pipe, r"model\.bin: is not the file that was exported"),
    (put_a_folder, r"model\.bin: the file is missing"),
]


@pytest.mark.parametrize(("damage", "part"), DAMAGES, ids=[damage.__name__ for damage, _ in DAMAGES])
def test_what_is_not_as_it_was_exported_is_refused(
    folder: Path, damage: Callable[[Path], None], part: str
) -> None:
    damage(folder)
    with pytest.raises(RunFolderError, match=part) as caught:
        read_bundle(folder)
    assert "\n" not in str(caught.value)
    assert "copy the bundle anew, or export again" in str(caught.value)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(FILES["model.bin"]) - 1), byte=st.integers(0, 255))
def test_no_byte_can_change_unseen(folder: Path, place: int, byte: int) -> None:
    content = bytearray(FILES["model.bin"])
    same, content[place] = content[place] == byte, byte
    (folder / "model.bin").write_bytes(content)
    if same:
        read_bundle(folder)
    else:
        with pytest.raises(RunFolderError, match="SHA-256"):
            read_bundle(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "onnx/../../secret", "./model.bin", ""])
def test_a_manifest_cannot_name_what_lies_outside(folder: Path, name: str) -> None:
    secret = folder.parent / "secret"
    secret.write_bytes(b"x")
    entry = {"sha256": digest_of(secret), "size": 1}
    edited(folder, files={**json.loads((folder / "bundle.json").read_text())["files"], name: entry})
    with pytest.raises(RunFolderError, match="the file is missing"):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"format": "ctranslate"}, "unknown value 'ctranslate'; did you mean 'ctranslate2'"),
        ({"format": 7}, "format: "),
        ({"formats": "gguf"}, "unknown key 'formats'; did you mean 'format'"),
        ({"tokens": {"eos": -1, "pad": 0}}, "tokens.eos: "),
        ({"tokens": {"pad": 0}}, "the key 'tokens.eos' is missing"),
        ({"settings": {"temperature": 0.0}}, "settings.temperature: "),
        ({"settings": {"threshold": 1.5}}, "settings.threshold: "),
        ({"settings": {"readout": "firsts"}}, "did you mean 'first'"),
        ({"files": {"model.bin": {"sha256": "7", "size": 1}}}, "files.model.bin.sha256: "),
        ({"positions": 0}, "positions: "),
        ({"version": 0}, "version: unknown value '0'"),
        ({"version": "2"}, "version: unknown value '2'"),
    ],
)
def test_a_manifest_that_says_what_is_not_allowed_is_refused(
    folder: Path, changes: dict[str, Any], part: str
) -> None:
    edited(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        read_bundle(folder)
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_manifest_of_a_newer_version_says_upgrade(folder: Path) -> None:
    edited(folder, version=2, stepdistill="9.0.0", anything="new")
    with pytest.raises(RunFolderError, match=r"made by stepdistill '9\.0\.0' .* pip install --upgrade"):
        read_bundle(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"a": NaN', b"[" * 99_999])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, content: bytes) -> None:
    (folder / "bundle.json").write_bytes(content)
    with pytest.raises(DataError, match=r"bundle\.json"):
        read_bundle(folder)


def test_a_manifest_of_gigabytes_is_not_read(folder: Path) -> None:
    with (folder / "bundle.json").open("wb") as file:
        file.truncate(1 << 36)  # a sparse file: it takes no room
    with pytest.raises(RunFolderError, match="has 68719476736 bytes"):
        read_bundle(folder)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.dictionaries(
        st.sampled_from([*Bundle.model_fields, "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda inner: (
                st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2)
            ),
        ),
    )
)
def test_no_manifest_ends_in_a_traceback(folder: Path, values: dict[str, Any]) -> None:
    seal(folder, PLAIN)
    edited(folder, **values)
    with contextlib.suppress(StepdistillError):
        read_bundle(folder)


def test_a_link_is_not_sealed(tmp_path: Path) -> None:
    (tmp_path / "model.bin").symlink_to("/etc/hostname")
    with pytest.raises(RunFolderError, match="plain files only"):
        seal(tmp_path, PLAIN)
    assert not (tmp_path / "bundle.json").exists()
