"""An export from beginning to end: checked, converted, proven, described, sealed, and only then there."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import stepdistill
from stepdistill.deploy import teacher
from stepdistill.deploy.bundle import (
    CARD,
    Bundle,
    Format,
    digest_of,
    is_bundle,
    of_student,
    read_bundle,
    seal,
)
from stepdistill.deploy.export import card, formats
from stepdistill.deploy.export.facts import facts
from stepdistill.deploy.export.formats import Converter, check_student, find_format
from stepdistill.deploy.export.job import LEAST, Exam, Source, exam, find
from stepdistill.deploy.export.proof import FINER, UnprovenError, refuse
from stepdistill.deploy.export.trial import Judged, Sides, described, judge, threads_here
from stepdistill.deploy.export.tuning import Target
from stepdistill.deploy.runtime import load
from stepdistill.deploy.spelling import TOKENIZER
from stepdistill.errors import ConfigError, RunFolderError
from stepdistill.files import lock, need_space, publish, read_object, write_json, write_text, writing
from stepdistill.records import Watcher, unwatched
from stepdistill.study.bill import answer_usd

PROOF = "proof.json"
_DRAFT = "draft"
_TIMES = {"onnx": 3.0}
"""How many times the size of the weights a conversion may need; else once."""
_BESIDE = 64_000_000
"""Bytes for tokenizer, vocabulary and card."""


@dataclass(frozen=True)
class Order:
    """What is to be exported, as what, to where.

    `precision` None: the format's first that is proven, from its default to finer ones. `threads` None: all
    that this process may use.
    """

    run: Path
    format: str
    out: Path
    precision: str | None = None
    student: str | None = None
    target: Target = field(default_factory=Target)
    accept: bool = False
    threads: int | None = None


@dataclass(frozen=True)
class Exported:
    """A bundle that is there, with its proof; `already`: it was there before."""

    out: Path
    bundle: Bundle
    proof: Mapping[str, Any]
    already: bool = False


@dataclass(frozen=True)
class _Plan:
    order: Order
    source: Source
    kind: Format
    converter: Converter
    precision: str

    @property
    def what(self) -> str:
        return f"{self.source.card['name']} as {self.kind} {self.precision}"

    def asked(self) -> dict[str, Any]:
        """What makes two exports the same one."""
        weights = sorted(self.source.student.glob("*.safetensors"))
        return {
            "student": self.source.card["name"],
            "weights": {path.name: digest_of(path) for path in weights},
            "format": self.kind,
            "precision": self.order.precision,
            "target_accuracy": self.order.target.accuracy,
            "target_share": self.order.target.share,
            "stepdistill": stepdistill.__version__,
        }


def export(order: Order, watch: Watcher = unwatched) -> Exported:
    """Export a student; nothing is at `out` before the export is proven, or where it fails.

    An `out` that holds this very export is left as it is.

    Raises:
        StudentError: the format cannot take the student, or the proof fails (unless `accept`).
        RunFolderError: no student is there, `out` holds something else, or there is no room.
        StepdistillError: of any other kind, in one line.
    """
    plan = _plan(order)
    there = _there(plan)
    if there is not None:
        return there
    questions = exam(plan.source)
    if len(questions.examples) < LEAST and not order.accept:
        n = len(questions.examples)
        lacks = f"{n} examples (validation and train) are no proof, {LEAST} are needed"
        refuse(lacks, plan.what, "float32")
    with _drafted(order.out) as draft:
        _need_room(plan, draft)
        made = _proven(plan, questions, draft, watch)
        publish(draft, order.out)
    return made


def _proven(plan: _Plan, questions: Exam, draft: Path, watch: Watcher) -> Exported:
    """The whole bundle, in the draft; where no precision was asked for, the first one that is proven."""
    passed: list[dict[str, str]] = []
    while True:
        try:
            return _made(plan, questions, draft, watch, passed)
        except UnprovenError as error:
            finer = FINER.get(plan.precision)
            if plan.order.precision is not None or finer is None:
                raise
            passed.append({"precision": plan.precision, "why": str(error)})
        with writing(draft):
            shutil.rmtree(draft)
            draft.mkdir()
        plan = replace(plan, precision=finer)


def _plan(order: Order) -> _Plan:
    """All that can be refused before any work is."""
    target = order.target
    if target.accuracy is not None and target.share is not None:
        raise ConfigError("give one of --target-accuracy and --target-share: a threshold meets one of them")
    for name, value in (("accuracy", target.accuracy), ("share", target.share)):
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"--target-{name} {value:g}: give a share above 0 and at most 1, such as 0.9")
    if order.threads is not None and order.threads < 1:
        raise ConfigError(f"--threads {order.threads}: at least 1 is needed")
    kind, converter = find_format(order.format)
    source = find(order.run, order.student)
    precision = order.precision or converter.PRECISIONS[0]
    check_student(source.student)
    converter.check(source.student, precision)
    if target.wanted and not load(source.student).closed:
        raise ConfigError(
            f"'{source.card['name']}' writes its answers, so they have no probabilities and there can be no "
            "threshold; leave the target out"
        )
    if target.wanted and not source.examples.get("validation"):
        raise ConfigError(
            f"{source.run}: the run has no validation examples to choose a threshold on; leave the target "
            "out, or add them to the task"
        )
    return _Plan(order, source, kind, converter, precision)


def _there(plan: _Plan) -> Exported | None:
    """This very export, where it is at `out` already.

    Raises:
        RunFolderError: there is something else.
    """
    out = plan.order.out
    if not out.exists() and not out.is_symlink():
        return None
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return None
    if not is_bundle(out):
        raise RunFolderError(f"{out}: is there already, and is no export; choose another --out")
    bundle, proof = read_bundle(out), read_object(out / PROOF)
    if proof.get("asked") == plan.asked() and (plan.order.accept or not proof.get("accepted")):
        return Exported(out, bundle, proof, already=True)
    raise RunFolderError(
        f"{out}: holds another export ({bundle.card.get('name')} as {bundle.format} {bundle.precision}); "
        "choose another --out, or remove it"
    )


@contextlib.contextmanager
def _drafted(out: Path) -> Iterator[Path]:
    """A folder beside `out`, held for this process, which is gone afterwards, also after a kill: the next
    start clears it away.
    """
    place = out.absolute()
    beside = place.with_name(f".{place.name}.export")
    try:
        with lock(beside):
            draft = beside / _DRAFT
            with writing(draft):
                if draft.exists():
                    shutil.rmtree(draft)
                draft.mkdir()
            try:
                yield draft
            finally:
                # While it is held: another process may not have begun in it.
                shutil.rmtree(beside, ignore_errors=True)
    except FileNotFoundError as error:
        raise RunFolderError(f"{out}: {error.filename} has gone while it was written; export again") from None


def _need_room(plan: _Plan, draft: Path) -> None:
    weights = sum(path.stat().st_size for path in plan.source.student.glob("*.safetensors"))
    need_space(draft, int(weights * _TIMES.get(plan.kind, 1.0)) + _BESIDE, f"exporting {plan.what}")


def _made(
    plan: _Plan, questions: Exam, draft: Path, watch: Watcher, passed: list[dict[str, str]]
) -> Exported:
    """The whole bundle in one precision, in the draft; `passed`: the coarser ones that were not proven.

    Raises:
        UnprovenError: the proof fails, and that was not accepted.
    """
    order, source = plan.order, plan.source
    watch("convert", 0, 1)
    bundle = of_student(source.student, source.card).model_copy(
        update={"format": plan.kind, "precision": plan.precision, "teacher": teacher.described(source.config)}
    )
    plan.converter.convert(source.student, draft, plan.precision)
    if not (draft / TOKENIZER).exists():
        with writing(draft):
            shutil.copyfile(source.student / TOKENIZER, draft / TOKENIZER)
    for path in draft.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
    bundle = seal(draft, bundle)
    watch("convert", 1, 1)
    sides = Sides(source.student, draft, order.threads or threads_here())
    judged = judge(source, sides, questions, plan.precision, order.target, watch)
    if judged.lacks and not order.accept:
        refuse(judged.lacks, plan.what, plan.precision)
    proof = {**_proof(plan, judged, size), "passed_over": passed}
    write_json(draft / PROOF, proof)
    bundle = seal(draft, bundle.model_copy(update={"settings": judged.tuning.settings}))
    told = facts(source.run, str(source.card["name"]), source.examples)
    write_text(draft / CARD, card.render(bundle, proof, told))
    return Exported(order.out, bundle, proof)


def _proof(plan: _Plan, judged: Judged, size: int) -> dict[str, Any]:
    """`proof.json`."""
    proof = judged.proof
    sizes = {"checkpoint": formats.size_of(plan.source.student), "export": size}
    return {
        "format": plan.kind,
        "precision": plan.precision,
        **proof,
        **described(judged.tuning, answer_usd(plan.source.job)),
        **{name: {**proof[name], "size_bytes": value} for name, value in sizes.items()},
        "accepted": bool(judged.lacks),
        "lacks": judged.lacks or None,
        "asked": plan.asked(),
    }
