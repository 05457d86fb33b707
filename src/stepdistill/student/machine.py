"""What numbers depend on besides the configuration: the versions, and the precision of the hardware."""

from __future__ import annotations

import platform
from importlib.metadata import version

from stepdistill.config import TrainConfig
from stepdistill.weights import has_bfloat16


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("stepdistill", "torch", "transformers", "tokenizers", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def use_bfloat16(config: TrainConfig) -> bool:
    """Whether to train under bfloat16 autocast.

    `auto` says yes where the hardware multiplies bfloat16 itself. Asked of the hardware's flags and not
    measured, so that the same machine always trains the same numbers.
    """
    return has_bfloat16() if config.precision == "auto" else config.precision == "bfloat16"
