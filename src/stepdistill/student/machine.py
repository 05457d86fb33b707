"""What numbers depend on besides the configuration: versions, the device, and its precision."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

import torch

from stepdistill.config import TrainConfig
from stepdistill.errors import StudentError
from stepdistill.weights import has_bfloat16

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Machine:
    """Where a student is trained and in which precision; `why` says it in words."""

    device: Device
    bfloat16: bool
    why: str

    @property
    def precision(self) -> str:
        """The precision of matrix products; weights and optimizer are float32 in any case."""
        return "bfloat16" if self.bfloat16 else "float32"


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("stepdistill", "torch", "transformers", "tokenizers", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def machine(config: TrainConfig) -> Machine:
    """The device and precision that a configuration means on this machine.

    `precision: auto` takes bfloat16 where the hardware multiplies it itself. Asked of the hardware's flags
    and not measured, so that the same machine always trains the same numbers.

    Raises:
        StudentError: a GPU is asked for and there is none.
    """
    device = _device(config)
    able = _cpu_has_bfloat16() if device == "cpu" else has_bfloat16()
    if config.precision != "auto":
        return Machine(device, config.precision == "bfloat16", f"{config.precision} on {device}, as asked")
    name, does = ("bfloat16", "multiplies") if able else ("float32", "does not multiply")
    return Machine(device, able, f"{name} on {device}, which {does} bfloat16 itself")


def _device(config: TrainConfig) -> Device:
    there = torch.cuda.is_available()
    if config.device == "cuda" and not there:
        raise StudentError(
            "train.device: cuda, but torch sees no GPU here; give auto or cpu, or install a torch built for "
            "your GPU's driver"
        )
    return "cuda" if there and config.device != "cpu" else "cpu"


def _cpu_has_bfloat16() -> bool:
    # `has_bfloat16` speaks of the GPU where there is one.
    return bool(torch.cpu._is_avx512_bf16_supported()) if torch.cuda.is_available() else has_bfloat16()
