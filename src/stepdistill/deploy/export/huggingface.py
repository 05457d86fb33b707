"""A student as transformers' own folder, for `from_pretrained` and all that is built on it."""

from __future__ import annotations

import shutil
from pathlib import Path

from stepdistill.errors import ConfigError, unknown
from stepdistill.files import read_object, write_json, writing

PRECISIONS = ("float32", "bfloat16")
_COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "model.safetensors.index.json",
)
"""Not the chat template: that of the first model asks in words on which the student was not trained."""


def check(student_folder: Path, precision: str) -> None:
    """Say, before anything is converted, what cannot be: as trained, so nothing but the precision.

    Raises:
        ConfigError: no such precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(unknown("precision of huggingface", precision, PRECISIONS))


def convert(student_folder: Path, draft: Path, precision: str) -> None:
    """Write configuration, tokenizer and weights into the folder `draft`.

    Training has merged low-rank weights already. Weights of whole numbers stay as they are.

    Raises:
        DataError: a file of the student is damaged.
        RunFolderError: they cannot be written.
    """
    for name in _COPIED:
        if (student_folder / name).exists():
            with writing(draft / name):
                shutil.copyfile(student_folder / name, draft / name)
    # Training may have switched the cache off, without which each token is paid for with all before it.
    config = read_object(student_folder / "config.json") | {"dtype": precision, "use_cache": True}
    write_json(draft / "config.json", config)
    greedy = read_object(student_folder / "generation_config.json") | {"use_cache": True}
    write_json(draft / "generation_config.json", greedy)
    for path in sorted(student_folder.glob("*.safetensors")):
        _cast(path, draft / path.name, precision)


def _cast(path: Path, out: Path, precision: str) -> None:
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    weights = {}
    with safe_open(path, "pt") as file:
        for name in file.keys():  # noqa: SIM118 - no mapping
            values = file.get_tensor(name)
            weights[name] = values.to(wanted) if values.is_floating_point() else values
    with writing(out):
        save_file(weights, out, metadata={"format": "pt"})
