"""Kill a training again and again, and see whether it ends as if nobody had.

Children are forked from a process that has everything imported, so that a kill costs little. Every other
kill comes at a random moment; the others at a random step on the disk, which is where a state could be
torn. Prints a JSON line a kill and one a finished training. Not a test by itself: see test_killed.py.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from stepdistill.config import ScratchConfig, StudentConfig, TrainConfig
from stepdistill.config.run import LoraConfig
from stepdistill.records import Target, unwatched
from stepdistill.student.checkpoint import newest
from stepdistill.student.model import Student, load_student, new_student
from stepdistill.student.scratch import train_tokenizer
from stepdistill.student.train import Lesson, forget_work, train

KINDS = ("encoder-decoder", "causal", "causal by LoRA")
FILES = ("model.safetensors", "log.json", "student.json")
STEPS = ("fsync", "rename", "replace", "mkdir", "unlink", "rmdir")
SETTINGS: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 4,
    "micro_batch_size": 2,
    "learning_rate": 1e-2,
    "save_every": 2,
    "evaluate_every": 3,
    "patience": 9,
    "precision": "float32",
}


def targets() -> list[list[Target]]:
    """Sums in words; every third has no rationale."""
    made = []
    for i in range(13):
        text = f"Anna has {i % 7 + 1} apples and gets {i % 5 + 2} more{' today' * (i % 4)}. How many?"
        pairs = [Target(str(i), text, str(i % 7 + i % 5 + 3), "label")]
        if i % 3:
            pairs.append(Target(str(i), text, f"{i % 7 + 1} and {i % 5 + 2} more.", "rationale"))
        made.append(pairs)
    return made


def make(kind: str, home: Path) -> Student:
    """A tiny student with dropout."""
    texts = [f"[label] [rationale] {t.source}\n{t.target}" for pairs in targets() for t in pairs]
    if kind == "encoder-decoder":
        sizes = ScratchConfig(d_model=16, d_ff=32, heads=2, layers=1, vocabulary=200, dropout=0.1)
        return new_student(StudentConfig(model="scratch:", scratch=sizes), 0, texts)
    tokenizer = train_tokenizer(texts, 200)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_dropout=0.1,
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(home / "llama")
    tokenizer.save_pretrained(home / "llama")
    return load_student(str(home / "llama"))


def fingerprint(student: Student, _: Any) -> float:
    """A score that any bit of the weights changes."""
    total = hashlib.sha256()
    for value in student.model.state_dict().values():
        total.update(value.numpy().tobytes())
    return int.from_bytes(total.digest()[:4]) / 2**32


def lesson(kind: str) -> Lesson:
    """What is trained."""
    given, config = targets(), TrainConfig(**SETTINGS)
    lora = LoraConfig(rank=2, dropout=0.1) if kind.endswith("LoRA") else None
    return Lesson("s", given, len(given), fingerprint, config, 0, {}, lora=lora)


def arm(kill_at: int) -> list[int]:
    """Make the k-th step on the disk of this process its last one; the count so far, in a list."""
    count = [0]

    def armed(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            count[0] += 1
            if count[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*args, **kwargs)

        return step

    for name in STEPS:
        setattr(os, name, armed(getattr(os, name)))
    return count


def child(student: Student, kind: str, out: Path, note: Path, kill_at: int, kill_after: float) -> bool:
    """Train in a forked process; whether it was killed before its end."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            count = arm(kill_at)
            if (out / "s").exists():  # as a run does it
                forget_work(out / "s")
            else:
                train(student, lesson(kind), out / "s", unwatched)
            note.write_text(json.dumps({"steps": count[0], "modules": sorted(sys.modules)}))
            code = 0
        except BaseException as error:  # noqa: BLE001
            print(f"child: {error!r}", file=sys.stderr)
        finally:
            os._exit(code)
    if kill_after:
        time.sleep(kill_after)
        # Not reaped yet, the number is still its own.
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if os.WIFEXITED(status) and os.WEXITSTATUS(status):
        raise SystemExit("the child failed")
    return os.WIFSIGNALED(status)


def facts(out: Path) -> dict[str, str]:
    """What must be equal after any interruption."""
    hashes = {name: hashlib.sha256((out / "s" / name).read_bytes()).hexdigest() for name in FILES}
    return {**hashes, "left over": " ".join(sorted(path.name for path in out.iterdir()))}


def warm(student: Student, kind: str, out: Path, note: Path) -> tuple[float, int, dict[str, str]]:
    """Seconds, steps on the disk and facts of an undisturbed run, with all its modules imported here."""
    for _ in range(2):  # the second knows all modules, and is what the killed ones are like
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        begun = time.monotonic()
        assert not child(student, kind, out, note, 0, 0.0)
        seconds, noted = time.monotonic() - begun, json.loads(note.read_text())
        for name in noted["modules"]:
            with suppress(ImportError):
                importlib.import_module(name)
        # Every training collects garbage; what was imported needs no looking through each time.
        gc.freeze()
    return seconds, noted["steps"], facts(out)


def main(home: Path, kills: int, seed: int, kind: str) -> None:
    """`kills` kills of one kind of student; a training that ends is compared, and another begins."""
    torch.set_num_threads(1)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    chance = random.Random(seed)
    student, note, out = make(kind, home), home / "note", home / "run"
    seconds, steps, expected = warm(student, kind, out, note)
    shutil.rmtree(out)
    done = ended = 0
    while True:
        out.mkdir(exist_ok=True)
        # The first comes where a checkpoint is certain, so that even a single one shows a restart.
        step, after = chance.randint(1 if done else steps // 2, steps), chance.uniform(0.0, seconds)
        if done >= kills:
            step, after = 0, 0.0
        elif done % 2:
            step = 0
        else:
            after = 0.0
        if child(student, kind, out, note, step, after):
            done += 1
            found, torn = newest(out / ".s.work")
            # Where the student is there already, it was the checkpoints' deletion that was cut short.
            left = 0 if (out / "s").exists() else len(torn)
            row = {"kill": done, "disk step": step, "second": after, "torn": left}
            print(json.dumps({**row, "from": found.name if found else None}), flush=True)
            continue
        found_now = facts(out)
        wrong = [name for name in expected if found_now[name] != expected[name]]
        ended += 1
        row = {"ended": ended, "kind": kind, "wrong": wrong, "seconds": seconds, "disk steps": steps}
        print(json.dumps(row), flush=True)
        shutil.rmtree(out)
        if done >= kills:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
