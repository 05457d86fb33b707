"""Encoded examples on disk: what is read is what was written, in any process, or nothing at all."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import resource
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from accelerate import skip_first_batches
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from stepdistill.errors import RunFolderError, StudentError
from stepdistill.student import corpus as corpus_module
from stepdistill.student.batch import Collator
from stepdistill.student.corpus import Corpus, write_corpus
from stepdistill.student.encode import TASKS, Branch, Item, Row, tokens
from stepdistill.student.order import StepSampler

IDS = st.lists(st.integers(0, 2**31 - 1), max_size=6)
WEIGHTS = st.floats(0, 10, allow_nan=False)
BRANCHES = st.builds(Branch, st.sampled_from(TASKS), IDS, IDS, WEIGHTS)
ROWS = st.builds(Row, IDS, st.lists(BRANCHES, max_size=3).map(tuple))
ITEMS = st.lists(ROWS, max_size=3).map(tuple)
NAMES = st.text(st.characters(), max_size=5)  # with half surrogate pairs, as JSON can hold them


def items(n: int) -> Iterator[tuple[str, Item]]:
    """Examples of both shapes: one row with two branches, and two rows of their own."""
    for i in range(n):
        source, label, reason = list(range(1, i % 9 + 3)), [i % 7 + 1, 2], [*range(3, i % 5 + 5), 2]
        if i % 2:
            branches = (Branch("label", [5], label), Branch("rationale", [6, 7], reason, 0.5))
            yield f"é{i}", (Row(source, branches),)
        else:
            yield (
                f"é{i}",
                (Row(source, (Branch("label", [], label),)), Row(source, (Branch("rationale", [], reason),))),
            )


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Thirty examples."""
    return write_corpus(tmp_path / "train.arrow", items(30))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(NAMES, ITEMS), max_size=9), st.integers(1, 4))
def test_every_item_comes_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[tuple[str, Item]], chunk: int
) -> None:
    monkeypatch.setattr(corpus_module, "CHUNK", chunk)
    corpus = write_corpus(tmp_path / "c.arrow", iter(given))
    assert len(corpus) == len(given)
    assert [corpus[i] for i in range(len(corpus))] == [(i, item) for i, (_, item) in enumerate(given)]
    assert [corpus.id(i) for i in range(len(corpus))] == [name for name, _ in given]
    assert corpus.lengths.tolist() == [tokens(item) for _, item in given]
    assert corpus.lengths.dtype == np.int32


def test_items_are_made_of_plain_numbers(corpus: Corpus) -> None:
    _, (row,) = corpus[1]
    assert {type(i) for i in row.source} | {type(i) for b in row.branches for i in b.target} == {int}
    assert {type(b.weight) for b in row.branches} == {float}


def test_a_muted_example_differs_in_its_weights_alone_and_keeps_its_number(corpus: Corpus) -> None:
    for example in (0, 1, 29):
        number, muted = corpus[~example]
        assert number == ~example
        _, item = corpus[example]
        assert {b.weight for row in muted for b in row.branches} == {0.0}
        silent = [replace(r, branches=tuple(replace(b, weight=0.0) for b in r.branches)) for r in item]
        assert muted == tuple(silent) != item
        assert corpus.id(~example) == corpus.id(example) == f"é{example}"


@pytest.mark.parametrize("number", [30, ~30])
def test_there_is_no_example_beyond_the_last(corpus: Corpus, number: int) -> None:
    with pytest.raises(IndexError, match="example 30 of 30"):
        _ = corpus[number]


def test_no_examples_are_an_empty_corpus(tmp_path: Path) -> None:
    assert len(write_corpus(tmp_path / "c.arrow", [])) == 0


def test_another_process_is_given_the_path_and_not_the_examples(tmp_path: Path) -> None:
    small, large = (pickle.dumps(write_corpus(tmp_path / f"{n}", items(n))) for n in (2, 2000))
    assert abs(len(large) - len(small)) < 10
    again = pickle.loads(large)
    assert [again[i] for i in (0, 1999)] == [copy.copy(again)[i] for i in (0, 1999)]


def flat(value: Any) -> Any:
    """A batch with lists in the place of tensors, which can be compared."""
    return {k: flat(v) for k, v in value.items()} if isinstance(value, dict) else value.tolist()


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_give_the_same_batches_in_the_same_order(corpus: Corpus, start: str) -> None:
    sampler = StepSampler(corpus.lengths, batch_size=8, micro=1, seed=3)
    collate = Collator(pad=0, family="encoder-decoder", start=0)
    alone = DataLoader(corpus, batch_sampler=sampler, collate_fn=collate)
    shared = DataLoader(
        corpus, batch_sampler=sampler, collate_fn=collate, num_workers=2, multiprocessing_context=start
    )
    for epoch in range(2):
        sampler.set_epoch(epoch)
        batches = [flat(batch) for batch in alone]
        assert [flat(batch) for batch in shared] == batches
        assert len(batches) == len(sampler) == 32
        # Thirty examples fill all but two of the micro-batches; those count nothing.
        assert sum(batch["totals"] == [0.0, 0.0] for batch in batches) == 2


def test_worker_processes_change_nothing_in_what_is_trained(teach: Callable[..., Any]) -> None:
    settings = {"dropout": 0.1, "micro_batch_size": 2, "n": 11}
    alone, shared = teach("alone", **settings), teach("shared", workers=2, **settings)
    assert alone.bytes == shared.bytes


def test_a_restart_within_an_epoch_goes_on_with_the_next_micro_batch(corpus: Corpus) -> None:
    sampler = StepSampler(corpus.lengths, batch_size=8, micro=4, seed=3)
    loader = DataLoader(corpus, batch_sampler=sampler, collate_fn=lambda samples: [i for i, _ in samples])
    sampler.set_epoch(2)
    whole = list(loader)
    sampler.set_epoch(0)
    rest = skip_first_batches(loader, 3)
    # As transformers does: what is skipped wraps the sampler, which is told the epoch afterwards.
    rest.batch_sampler.batch_sampler.set_epoch(2)
    assert list(rest) == whole[3:]


@pytest.mark.parametrize("kept", [0, 7, 100, -200, -9, -1])
def test_a_torn_file_is_refused(corpus: Corpus, kept: int) -> None:
    raw = corpus.path.read_bytes()
    corpus.path.with_name("torn").write_bytes(raw[:kept])
    with pytest.raises(StudentError, match=r"torn: damaged file of encoded examples .*; delete it") as error:
        Corpus(corpus.path.with_name("torn"))
    assert "\n" not in str(error.value)


def test_a_file_whose_middle_was_never_written_is_refused(corpus: Corpus) -> None:
    raw = corpus.path.read_bytes()
    hole = len(raw) // 3
    torn = corpus.path.with_name("torn")
    torn.write_bytes(raw[:hole] + bytes(len(raw) // 3) + raw[hole + len(raw) // 3 :])
    with pytest.raises(StudentError, match="damaged"):
        Corpus(torn)


def test_a_task_that_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd: Item = (Row([1], (Branch("third", [], [2]),)),)  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(corpus_module, "TASKS", (*TASKS, "third"))
        write_corpus(tmp_path / "c.arrow", [("a", odd)])
    with pytest.raises(StudentError, match="a task has no name"):
        Corpus(tmp_path / "c.arrow")


@pytest.mark.parametrize("kind", ["text", "other columns", "other meaning", "folder", "nothing"])
def test_a_foreign_file_is_refused(corpus: Corpus, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "foreign"
    if kind == "text":
        path.write_text("id,text\n1,a\n" * 100)
    elif kind == "folder":
        path.mkdir()
    elif kind != "nothing":
        table = pa.ipc.open_file(corpus.path).read_all()
        table = table.drop_columns("id") if kind == "other columns" else table.replace_schema_metadata({})
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(StudentError, match=r"foreign: .*train again") as error:
        Corpus(path)
    assert "\n" not in str(error.value)


def test_a_failure_on_the_way_leaves_what_was_there(corpus: Corpus) -> None:
    def failing() -> Iterator[tuple[str, Item]]:
        yield from items(5)
        raise ValueError("no such word")

    with pytest.raises(ValueError, match="no such word"):
        write_corpus(corpus.path, failing())
    assert [path.name for path in corpus.path.parent.iterdir()] == ["train.arrow"]
    assert len(Corpus(corpus.path)) == 30


def write_with_little_room(path: Path, told: Any) -> None:
    """In a process of its own: what is limited here is every file of a process."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        write_corpus(path, items(5000))
    except RunFolderError as error:
        told.send(str(error))


def test_no_space_is_said_in_one_line(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe(duplex=False)
    path = tmp_path / "train.arrow"
    process = fork.Process(target=write_with_little_room, args=(path, theirs))
    process.start()
    theirs.close()
    process.join(60)
    assert process.exitcode == 0
    words = ours.recv()
    assert words.startswith(f"{path}: the file size limit is reached; make room")
    assert "\n" not in words
    assert list(tmp_path.iterdir()) == []
