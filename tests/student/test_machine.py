"""The machine: which device and precision a configuration means there, and that it is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError
from stepdistill.student import machine as module
from stepdistill.student.machine import machine, versions


@pytest.fixture
def hardware(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Another machine than this one: with or without a GPU, and what multiplies bfloat16 there."""

    def be(gpu: bool = False, gpu_has: bool = False, cpu_has: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: cpu_has)
        # Speaks of the GPU where there is one.
        monkeypatch.setattr(module, "has_bfloat16", lambda: gpu_has if gpu else cpu_has)

    return be


@pytest.mark.parametrize(
    ("there", "asked", "device", "precision"),
    [
        ({}, {}, "cpu", "float32"),
        ({"cpu_has": True}, {}, "cpu", "bfloat16"),
        ({"gpu": True}, {}, "cuda", "float32"),
        ({"gpu": True, "gpu_has": True}, {}, "cuda", "bfloat16"),
        ({"gpu": True, "cpu_has": True}, {}, "cuda", "float32"),
        ({"gpu": True, "gpu_has": True}, {"device": "cpu"}, "cpu", "float32"),
        ({"gpu": True, "cpu_has": True}, {"device": "cpu"}, "cpu", "bfloat16"),
        ({"gpu": True, "gpu_has": True}, {"device": "cuda"}, "cuda", "bfloat16"),
    ],
)
def test_auto_takes_the_gpu_and_bfloat16_where_that_device_multiplies_it(
    hardware: Callable[..., None], there: dict[str, bool], asked: dict[str, Any], device: str, precision: str
) -> None:
    hardware(**there)
    found = machine(TrainConfig(**asked))
    assert (found.device, found.precision, found.bfloat16) == (device, precision, precision == "bfloat16")
    does = "multiplies" if found.bfloat16 else "does not multiply"
    assert found.why == f"{precision} on {device}, which {does} bfloat16 itself"


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("gpu", "device"), [(False, "cpu"), (True, "cuda")])
def test_the_precision_that_is_asked_for_is_taken_whatever_the_hardware_does(
    hardware: Callable[..., None], precision: Any, gpu: bool, device: str, has: bool
) -> None:
    hardware(gpu, gpu_has=has, cpu_has=has)
    found = machine(TrainConfig(precision=precision))
    assert (found.device, found.precision) == (device, precision)
    assert found.why == f"{precision} on {device}, as asked"


def test_a_gpu_that_is_asked_for_must_be_there(hardware: Callable[..., None]) -> None:
    hardware(gpu=False, cpu_has=True)
    with pytest.raises(
        StudentError, match=r"train\.device: cuda, but torch sees no GPU here; give auto or cpu"
    ):
        machine(TrainConfig(device="cuda"))


def test_precision_and_its_reason_are_said_when_training_begins(
    teach: Callable[..., Any], hardware: Callable[..., None]
) -> None:
    hardware()
    notes: list[str] = []

    def watch(what: str, done: int, total: int, note: str = "") -> None:
        notes.extend([note] if what.startswith("train") else [])

    teach(precision="auto", epochs=1, watch=watch)
    assert notes[0] == "float32 on cpu, which does not multiply bfloat16 itself"
    assert not any("float32" in note for note in notes[1:])


def test_the_versions_are_those_that_are_installed() -> None:
    assert versions()["torch"].split("+")[0] == torch.__version__.split("+")[0]
