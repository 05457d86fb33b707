"""The training stage: targets in, a folder with the best checkpoint out."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import DefaultFlowCallback, PrinterCallback, set_seed

from stepdistill.config import TrainConfig
from stepdistill.config.run import LoraConfig
from stepdistill.errors import StepdistillError
from stepdistill.files import need_space, publish, write_json, writing
from stepdistill.records import Target, TaskName, Watcher, unwatched
from stepdistill.student.adapter import adapt, merged, trainable
from stepdistill.student.balance import Balance, check_whole
from stepdistill.student.batch import Collator
from stepdistill.student.branches import can_branch
from stepdistill.student.card import CARD, LOG, card
from stepdistill.student.checkpoint import checkpoints
from stepdistill.student.corpus import Corpus, write_corpus
from stepdistill.student.encode import Encoder, Item
from stepdistill.student.flow import Flow
from stepdistill.student.forward import multitask
from stepdistill.student.guards import Guard, out_of_memory, unused_weights
from stepdistill.student.journal import Journal, Progress, history
from stepdistill.student.limits import check_asked, check_label_set, limits_of
from stepdistill.student.machine import Machine, machine
from stepdistill.student.model import Student
from stepdistill.student.order import StepSampler
from stepdistill.student.settings import arguments, learning_rate, micro_batch
from stepdistill.student.team import Team, join
from stepdistill.student.trainer import Parts, StepByStepTrainer, has_ended
from stepdistill.weights import decoder_start

_CORPUS = "corpus.arrow"
_TENSORBOARD = "runs"
"""Where transformers writes TensorBoard's files, in the folder of the checkpoints."""


@dataclass(frozen=True)
class Lesson:
    """What one student is trained on and how it is chosen.

    `targets` are those of one example at a time, `n` examples in all; they are gone through once.
    `validate` measures a student on the validation split, a number from 0 to 1, given how many tokens an
    answer of each task may have; None where there is no such split, and then the last step is kept. `asked`
    are the inputs that it will have to answer, without a task's marker; they are checked before training,
    as are the `labels` of a closed set. `facts` are added to the student's card.
    """

    name: str
    targets: Iterable[Sequence[Target]]
    n: int
    validate: Callable[[Student, Mapping[TaskName, int]], float] | None
    config: TrainConfig
    seed: int
    facts: dict[str, Any]
    asked: Iterable[str] = ()
    labels: tuple[str, ...] = ()
    lora: LoraConfig | None = None


@dataclass(frozen=True)
class _Prepared:
    """What the first process has found out while it wrote the corpus."""

    new_tokens: dict[str, int]
    limits: dict[str, Any]
    rationales: int
    note: str | None


@dataclass(frozen=True)
class _Room:
    """Where a lesson takes place: the student, its folders, the machine and the other processes."""

    student: Student
    lesson: Lesson
    folder: Path
    machine: Machine
    team: Team
    watch: Watcher

    @property
    def work(self) -> Path:
        return _work(self.folder)


def train(student: Student, lesson: Lesson, folder: Path, watch: Watcher = unwatched) -> None:
    """Train, and leave the chosen student in `folder`: there whole, or not there at all.

    Interrupted, it goes on from the newest whole checkpoint when called again with the same arguments, to
    the same weights and the same log. Called by several processes at once (torchrun, `accelerate launch`),
    they train together. The given student is used up.

    Raises:
        StudentError: a text is too long, the loss is not finite or explodes, memory runs out ...
        MissingExtraError: `report_to` or LoRA needs a package that is not installed.
        RunFolderError: the disk is full or not writable.
    """
    config = lesson.config
    team = join(cpu=config.device == "cpu" or not torch.cuda.is_available())
    where = team.first(lambda: machine(config))
    room = _Room(student, lesson, folder, where, team, watch if team.is_first else unwatched)
    prepared = team.first(lambda: _prepare(room))
    set_seed(lesson.seed)
    model = adapt(student.model, lesson.lora, student.family) if lesson.lora else student.model
    trained = trainable(model)
    trainer = _trainer(room, model, prepared)
    _fit(room, trainer)
    trainer.choose()
    # Before the first process deletes the checkpoints, the others have read theirs.
    team.gather(0)
    _keep(room, trainer, prepared, trained)
    team.first(lambda: forget_work(folder))


def forget_work(folder: Path) -> None:
    """Delete the checkpoints of a student that is finished."""
    shutil.rmtree(_work(folder), ignore_errors=True)


def _work(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.work")


def _prepare(room: _Room) -> _Prepared:
    """Encode, check and write what is trained on; refuse before any work what cannot end well."""
    student, lesson, work = room.student, room.lesson, room.work
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    try:
        encoder = _encoder(student)
        check_label_set(encoder, lesson.labels)
        limits = limits_of(encoder, lesson.config, student.model)
        corpus = write_corpus(work / _CORPUS, limits.sift(_items(room, encoder)))
        limits.check()
        check_asked(encoder, lesson.asked, limits, lesson.facts.get("test_rationales") == "student")
        _sampler(room, corpus)
        # Two checkpoints (weights and two moments) while a third is being written, and the result; of LoRA,
        # checkpoints hold next to nothing.
        needed = student.parameters * 4 * (1 if lesson.lora else 10)
        there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
        need_space(work, max(needed - there, 0), f"training {lesson.name}")
    except StepdistillError:
        if not checkpoints(work):
            forget_work(room.folder)
        raise
    return _Prepared(limits.new_tokens, limits.report(), limits.found.rationales_kept, limits.note)


def _encoder(student: Student) -> Encoder:
    return replace(student.encoder, share=student.family != "causal" or can_branch(student.model))


def _items(room: _Room, encoder: Encoder) -> Iterator[tuple[str, Item]]:
    what, n = f"encode {room.lesson.name}", room.lesson.n
    for number, targets in enumerate(room.lesson.targets, start=1):
        yield targets[0].example_id, encoder.item(targets)
        room.watch(what, number, max(n, number))


def _sampler(room: _Room, corpus: Corpus) -> StepSampler:
    config, team = room.lesson.config, room.team
    return StepSampler(
        corpus.lengths,
        config.batch_size,
        micro_batch(config, team.world),
        team.world,
        team.rank,
        room.lesson.seed,
        config.group_by_length,
    )


def _trainer(room: _Room, model: Any, prepared: _Prepared) -> StepByStepTrainer:
    student, lesson, config, team = room.student, room.lesson, room.lesson.config, room.team
    corpus = Corpus(room.work / _CORPUS)
    sampler = _sampler(room, corpus)
    validate, limits = lesson.validate, prepared.new_tokens
    parts = Parts(
        sampler=sampler,
        balance=Balance(config.rationale_weight),
        journal=Journal(),
        guard=Guard(int(student.model.get_output_embeddings().weight.shape[0])),
        progress=Progress(f"train {lesson.name}", config.batch_size, room.watch),
        measure=(lambda: validate(student, limits)) if validate else None,  # type: ignore[arg-type]
        team=team,
    )
    flow = Flow(config, sampler.steps_per_epoch, validate is not None)
    trainer = StepByStepTrainer(
        parts=parts,
        model=model,
        args=arguments(lesson, student.family, room.work, room.machine, team),
        train_dataset=corpus,
        data_collator=Collator(
            int(student.tokenizer.pad_token_id or 0),
            student.family,
            config.loss_mean,
            decoder_start(student.model),
        ),
        callbacks=[flow, parts.progress, parts.journal, parts.guard, parts.balance],
    )
    if trainer.sharded:
        team.alike(lambda: check_whole(parts.balance, lesson.lora is not None))
    for callback in (PrinterCallback, DefaultFlowCallback):
        trainer.remove_callback(callback)
    parts.progress.begin = room.machine.why
    parts.progress.remarks = [prepared.note] if prepared.note else []
    if team.rank:
        # The same dropout in every process would be noise that does not average out.
        set_seed(lesson.seed + team.rank)
    return trainer


def _fit(room: _Room, trainer: StepByStepTrainer) -> None:
    """Train to the end, from the newest checkpoint that is whole."""
    config, team = room.lesson.config, room.team
    last, damaged = team.first(trainer.newest)
    if damaged:
        names = ", ".join(path.name for path in damaged)
        start = last.name if last else "the beginning"
        trainer.parts.progress.remarks.insert(0, f"{names} damaged, going on from {start}")
    if last and has_ended(last):
        trainer.take_from(last)
        return
    try:
        with multitask(trainer.model, room.student.family):
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    except (RuntimeError, MemoryError) as error:
        micro = micro_batch(config, team.world)
        told = out_of_memory(error, config, micro, trainer.batch_lengths()) or unused_weights(error)
        if told is None:
            raise
        raise told from None


def _keep(room: _Room, trainer: StepByStepTrainer, prepared: _Prepared, trained: int) -> None:
    # Gathered by all processes, where each holds a part.
    whole = trainer.accelerator.get_state_dict(trainer.model_wrapped) if trainer.sharded else None
    room.team.first(lambda: _write(room, trainer, prepared, trained, whole))


def _write(
    room: _Room, trainer: StepByStepTrainer, prepared: _Prepared, trained: int, whole: dict[str, Any] | None
) -> None:
    student, lesson, folder = room.student, room.lesson, room.folder
    draft = folder.with_name(f".{folder.name}.draft")
    model = merged(trainer.model) if lesson.lora else student.model
    with writing(draft):
        shutil.rmtree(draft, ignore_errors=True)
        model.save_pretrained(draft, **({"state_dict": whole} if whole is not None else {}))
        student.tokenizer.save_pretrained(draft)
        if (room.work / _TENSORBOARD).is_dir():
            shutil.copytree(room.work / _TENSORBOARD, draft / "tensorboard")
        write_json(draft / LOG, history(trainer.state.log_history))
        measured = {
            **_counts(lesson, prepared),
            "parameters": student.parameters,
            "trained": trained,
            "n_train": len(trainer.train_dataset),
            "new_tokens": prepared.new_tokens,
            "limits": prepared.limits,
            "learning_rate": learning_rate(lesson, student.family),
            "chosen_step": trainer.state.best_global_step or trainer.state.global_step,
            "steps": trainer.state.global_step,
            "validation": trainer.state.best_metric,
        }
        write_json(draft / CARD, card(student, lesson, room.machine, room.team, measured))
        write_json(draft / "seconds.json", trainer.seconds())
    publish(draft, folder)


def _counts(lesson: Lesson, prepared: _Prepared) -> dict[str, int]:
    """The lesson's counts after what is too long was dropped; none where nothing was."""
    dropped = prepared.limits["left_out"]
    if not dropped:
        return {}
    counts = {"n_left_out": lesson.facts.get("n_left_out", 0) + dropped}
    # Where they are part of a label's sequence, those that were dropped are not told apart.
    return {**counts, "n_rationales": prepared.rationales} if prepared.rationales else counts
