"""What numbers depend on besides the configuration: the versions, and the precision of the hardware."""

from __future__ import annotations

import platform
from importlib.metadata import version

import torch

from stepdistill.config import TrainConfig


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("stepdistill", "torch", "transformers", "tokenizers", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def use_bfloat16(config: TrainConfig) -> bool:
    """Whether to train under bfloat16 autocast.

    `auto` says yes where the hardware multiplies bfloat16 itself. Elsewhere it is emulated, on a CPU
    without AVX-512 BF16 at a hundredth of the speed of float32. Asked of the hardware's flags and not
    measured, so that the same machine always trains the same numbers.
    """
    if config.precision != "auto":
        return config.precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return _cpu_has_bfloat16()


def _cpu_has_bfloat16() -> bool:
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if flags:
        return bool(flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16"))
    return bool(torch.cpu._is_avx512_bf16_supported())
