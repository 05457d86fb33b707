"""Low-rank adapters (LoRA, Hu et al. 2021): a few weights beside a frozen model, and merged into it."""

from __future__ import annotations

import warnings
from typing import Any

from stepdistill.config.run import LoraConfig
from stepdistill.errors import MissingExtraError
from stepdistill.weights import Family


def adapt(model: Any, lora: LoraConfig, family: Family) -> Any:
    """The model as peft's, with trainable low-rank weights beside every linear layer but the head.

    Its own weights are frozen and stay in the model, which is changed in place. The new ones are drawn
    from torch's global generator; the model answers as before until they are trained.

    Args:
        model: transformers' model.
        lora: rank, alpha and dropout.
        family: of the model.

    Raises:
        MissingExtraError: peft is not installed.
    """
    try:
        import peft
    except ImportError:
        raise MissingExtraError("student.lora", "lora") from None
    kind = peft.TaskType.CAUSAL_LM if family == "causal" else peft.TaskType.SEQ_2_SEQ_LM
    sizes = peft.LoraConfig(
        task_type=kind,
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear",
    )
    with warnings.catch_warnings():
        # What peft calls by an old name is nothing that a user could mend.
        warnings.simplefilter("ignore", FutureWarning)
        adapted = peft.get_peft_model(model, sizes)
    # peft asks the hub about a base that it knows by name, whenever a checkpoint is saved; None would be
    # filled in again.
    adapted.peft_config["default"].base_model_name_or_path = ""
    # Under gradient checkpointing, a segment whose input needs no gradient gets none at all.
    model.enable_input_require_grads()
    return adapted


def merged(model: Any) -> Any:
    """The plain model with the adapter added into its weights; it needs no peft from here on.

    The given model is used up.
    """
    plain = model.merge_and_unload()
    plain.disable_input_require_grads()
    return plain.requires_grad_(True)


def trainable(model: Any) -> int:
    """Number of weights that training changes, tied ones counted once."""
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
