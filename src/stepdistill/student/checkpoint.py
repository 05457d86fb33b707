"""Checkpoints: folders of safetensors and JSON with a list of digests; there whole, or not used."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from stepdistill.files import publish, sync_folder, writing

MANIFEST = "manifest.json"
STATE = "trainer_state.json"
SECONDS = "seconds.json"

_WEIGHTS = "weights.safetensors"
_MOMENTS = "optimizer.safetensors"
_OPTIMIZER = "optimizer.json"
_SCHEDULER = "scheduler.json"
_NOISE = "noise.json"
_PREFIX = "checkpoint-"
_DRAFT = ".draft"
_OLD = ".old"

Noise = dict[str, Any]
"""States of a process's random number generators, as JSON values."""


@dataclass(frozen=True)
class Training:
    """What is trained, as far as a checkpoint holds it: transformers' model, torch's optimizer, scheduler."""

    model: Any
    optimizer: Any
    scheduler: Any


def save(home: Path, step: int, training: Training, noise: Sequence[Noise], notes: Mapping[str, Any]) -> Path:
    """Write `checkpoint-<step>` in `home`: complete and on the disk before it has that name.

    Args:
        home: a folder of checkpoints.
        step: optimizer steps done.
        training: what goes into the checkpoint.
        noise: the states of all processes' random numbers, in their order.
        notes: further files, JSON values by name.

    Raises:
        RunFolderError: no space, no permission.
    """
    draft, final = home / _DRAFT, home / f"{_PREFIX}{step}"
    with writing(final):
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        save_file(_trained(training.model), draft / _WEIGHTS)
        moments, settings = _taken_apart(training.optimizer.state_dict())
        save_file(moments, draft / _MOMENTS)
        values = {_OPTIMIZER: settings, _SCHEDULER: training.scheduler.state_dict(), _NOISE: list(noise)}
        for name, value in {**values, **notes}.items():
            (draft / name).write_text(json.dumps(value, sort_keys=True), encoding="utf-8")
        found = {path.name: _facts(path) for path in sorted(draft.iterdir())}
        (draft / MANIFEST).write_text(json.dumps({"step": step, "files": found}), encoding="utf-8")
        # `publish` brings the files to the disk; without this, a power cut could leave them nameless.
        sync_folder(draft)
        publish(draft, final)
    return final


def newest(home: Path) -> tuple[Path | None, list[Path]]:
    """The newest checkpoint that is whole, as is the best that it speaks of; and newer ones that are not."""
    damaged: list[Path] = []
    for folder in checkpoints(home)[::-1]:
        if _usable(folder):
            return folder, damaged
        damaged.append(folder)
    return None, damaged


def checkpoints(home: Path) -> list[Path]:
    """The folders that are called checkpoints, by step."""
    found = [path for path in home.glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdecimal()]
    return sorted(found, key=_step)


def checkpoint(home: Path, step: int) -> Path:
    """The folder of a step."""
    return home / f"{_PREFIX}{step}"


def prune(home: Path, step: int, best: int | None) -> None:
    """Delete all checkpoints but this newest one and one more: the best, or else the one before it.

    The other is what is left where the newest one is damaged, so it must not need a third. None is ever
    seen half deleted.
    """
    kept = {step, best or step}
    if len(kept) == 1:
        before = [folder for folder in checkpoints(home) if _step(folder) < step]
        alone = [_step(folder) for folder in before if _best(folder) in (None, _step(folder))]
        kept.update(alone[-1:])
    for folder in checkpoints(home):
        if _step(folder) not in kept:
            os.rename(folder, home / f"{_OLD}-{_step(folder)}")
    for folder in home.glob(f"{_OLD}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def is_whole(folder: Path) -> bool:
    """Whether every file that was written is there, byte for byte."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        files = manifest["files"]
        return manifest["step"] == _step(folder) and all(
            Path(name).name == name and _facts(folder / name) == facts for name, facts in files.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False


def read(folder: Path, name: str) -> Any:
    """A JSON file of a checkpoint that is whole."""
    return json.loads((folder / name).read_bytes())


def load_weights(folder: Path, model: Any) -> None:
    """Put a checkpoint's weights into a model; those that are not trained stay as they are."""
    found, wanted = load_file(folder / _WEIGHTS), _trained(model)
    if found.keys() != wanted.keys():
        raise ValueError(f"{folder}: weights of another model: {sorted(found.keys() ^ wanted.keys())[:3]}")
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, value in found.items():
            own[name].copy_(value)


def load_optimizer(folder: Path, training: Training) -> None:
    """Put a checkpoint's moments and learning rate into optimizer and scheduler."""
    moments, groups = load_file(folder / _MOMENTS), read(folder, _OPTIMIZER)
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in moments.items():
        number, _, key = name.partition(".")
        state.setdefault(int(number), {})[key] = value
    for group in groups:
        group["betas"] = tuple(group["betas"])
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.scheduler.load_state_dict(read(folder, _SCHEDULER))


def noise() -> Noise:
    """The states of this process's random number generators."""
    version, numbers, gauss = random.getstate()
    name, keys, place, has_gauss, cached = np.random.get_state()
    states: Noise = {
        "python": [version, list(numbers), gauss],
        "numpy": [name, [int(key) for key in keys], int(place), int(has_gauss), float(cached)],
        "torch": _text(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        states["cuda"] = _text(torch.cuda.get_rng_state())
    return states


def load_noise(folder: Path, rank: int, world: int) -> bool:
    """Set this process's random number generators as they were; False where other processes trained."""
    states = read(folder, _NOISE)
    if len(states) != world:
        return False
    found = states[rank]
    version, numbers, gauss = found["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, place, has_gauss, cached = found["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, cached))
    torch.set_rng_state(_tensor(found["torch"]))
    if "cuda" in found and torch.cuda.is_available():
        torch.cuda.set_rng_state(_tensor(found["cuda"]))
    return True


def _usable(folder: Path) -> bool:
    if not is_whole(folder):
        return False
    best = _best(folder)
    return best in (None, _step(folder)) or is_whole(checkpoint(folder.parent, best))


def _best(folder: Path) -> int | None:
    """The step of the best checkpoint so far, as this one says; None where nothing was measured."""
    try:
        return read(folder, STATE).get("best_global_step") or None
    except (OSError, ValueError, AttributeError):
        return None


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix(_PREFIX))


def _facts(path: Path) -> dict[str, Any]:
    total = hashlib.sha256()
    with path.open("rb") as file:
        for piece in iter(lambda: file.read(1 << 20), b""):
            total.update(piece)
        return {"sha256": total.hexdigest(), "size": file.tell()}


def _trained(model: Any) -> dict[str, Tensor]:
    """What training changes: weights that want a gradient, tied ones once, and the buffers."""
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    known = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: value for name, value in model.state_dict().items() if name not in known}
    return {name: value.detach().cpu().contiguous() for name, value in {**weights, **buffers}.items()}


def _taken_apart(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    moments: dict[str, Tensor] = {}
    for number, values in state["state"].items():
        for key, value in values.items():
            moments[f"{number}.{key}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return moments, [dict(group) for group in state["param_groups"]]


def _text(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")


def _tensor(text: str) -> Tensor:
    return torch.tensor(list(base64.b64decode(text)), dtype=torch.uint8)
