"""Greedy generation, in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import StoppingCriteria

from stepdistill.errors import StudentError
from stepdistill.records import TaskName, Watcher, unwatched
from stepdistill.student.guards import is_out_of_memory
from stepdistill.student.limits import placed_tokens
from stepdistill.student.model import Student
from stepdistill.student.padding import pad_left, pad_right
from stepdistill.weights import decoder_start

T = TypeVar("T")

_TAIL = 12
"""Tokens at the end of an answer in which a stop string is looked for."""


@torch.inference_mode()
def generate(
    student: Student,
    texts: Sequence[str],
    new_tokens: int,
    batch_size: int = 32,
    watch: Watcher = unwatched,
    task: TaskName = "label",
    stop: str | None = None,
) -> list[str]:
    """The student's answers to input texts, in their order.

    The same texts always come in the same batches, so repeated runs agree to the last bit, unless memory
    runs out: then the batches are halved from there on.

    Args:
        student: put into evaluation mode while this runs.
        texts: inputs as in training, without a task's marker.
        new_tokens: at most so many tokens are written.
        batch_size: rows in one call, as long as memory lasts.
        watch: told of rows done, as "predict".
        task: what is asked for.
        stop: an answer may end once it has written this, a string of a few tokens (12 at most).

    Raises:
        StudentError: an input and its answer need more positions than the model has, or more memory than
            there is.
    """
    encoder = student.encoder
    sources = [encoder.source(text, task) for text in texts]
    opening, longest = encoder.opening(task), max(map(len, sources), default=0)
    check_positions(student, longest, len(opening), new_tokens)
    return in_batches(
        student,
        list(map(len, sources)),
        lambda places: write(student, [sources[i] for i in places], opening, new_tokens, stop),
        f"not enough memory to answer one input at a time (the longest has {longest} tokens, and up to "
        f"{new_tokens} are written); free memory, shorten the texts, or take a smaller student",
        batch_size,
        watch,
    )


def in_batches(
    student: Student,
    lengths: Sequence[int],
    work: Callable[[list[int]], Sequence[T]],
    refusal: str,
    batch_size: int = 32,
    watch: Watcher = unwatched,
) -> list[T]:
    """What `work` gives for each input, in their order; it is given places of inputs of similar length.

    Where memory runs out, the batches are halved from there on.

    Raises:
        StudentError: with the words `refusal`, where one input at a time needs more memory than there is.
    """
    order = sorted(range(len(lengths)), key=lambda i: (lengths[i], i))
    found: dict[int, T] = {}
    was_training = student.model.training
    student.model.eval()
    try:
        while len(found) < len(order):
            chosen = order[len(found) : len(found) + batch_size]
            made = _tried(work, chosen)
            if made is None and len(chosen) == 1:
                raise StudentError(refusal)
            if made is None:
                batch_size = len(chosen) // 2
                continue
            found.update(zip(chosen, made, strict=True))
            watch("predict", len(found), len(order))
    finally:
        student.model.train(was_training)
    return [found[i] for i in range(len(lengths))]


def check_positions(student: Student, source: int, opening: int, new_tokens: int) -> None:
    """Refuse inputs of up to `source` tokens that leave the model no place for `new_tokens`.

    Raises:
        StudentError: it has too few positions.
    """
    # Learned positions end in an IndexError somewhere inside the model.
    positions = getattr(student.model.config, "max_position_embeddings", None)
    needed = placed_tokens(student.family, source, opening, new_tokens) if source else 0
    if positions and needed > positions:
        raise StudentError(
            f"the model has {positions} positions, and the longest input ({source} tokens) needs {needed} "
            f"with {new_tokens} for what is written; shorten the text, or take another student"
        )


def _tried(work: Callable[[list[int]], Sequence[T]], places: list[int]) -> Sequence[T] | None:
    """What the work gives; None where memory ran out."""
    try:
        return work(places)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None


def write(
    student: Student,
    sources: Sequence[Sequence[int]],
    opening: Sequence[int],
    new_tokens: int,
    stop: str | None = None,
    read: Any = None,
) -> list[str]:
    """The answers to one batch of encoded inputs, as text; else as `write_ids`."""
    written = write_ids(student, sources, opening, new_tokens, stop, read)
    texts = student.tokenizer.batch_decode(written, skip_special_tokens=True)
    return [text.strip() for text in texts]


def write_ids(
    student: Student,
    sources: Sequence[Sequence[int]],
    opening: Sequence[int],
    new_tokens: int,
    stop: str | None = None,
    read: Any = None,
) -> list[list[int]]:
    """The answers to one batch of encoded inputs, without the end of sequence.

    `read` is what an encoder has made of them, right-padded, where somebody else has need of it too.
    """
    tokenizer, model = student.tokenizer, student.model
    pad = int(tokenizer.pad_token_id)
    if student.family == "causal":
        prompts = [[*source, *opening] for source in sources]
        given = {"input_ids": pad_left(prompts, pad)}
        given["attention_mask"] = pad_left([[1] * len(prompt) for prompt in prompts], 0)
        begin = given["input_ids"].shape[1]
    else:
        given = {"input_ids": pad_right(sources, pad)}
        given["attention_mask"] = pad_right([[1] * len(source) for source in sources], 0)
        begin = len(opening) + 1
        if read is not None:
            del given["input_ids"]
        if opening:
            given["decoder_input_ids"] = torch.tensor([[decoder_start(model), *opening]] * len(sources))
    given = {name: tensor.to(model.device) for name, tensor in given.items()}
    stops = [Stop(tokenizer, stop, begin)] if stop else None
    encoded = {} if read is None else {"encoder_outputs": read}
    written = model.generate(**given, **encoded, max_new_tokens=new_tokens, stopping_criteria=stops)
    end, filler = int(tokenizer.eos_token_id), pad if stop else None
    return [_ended(row, end, filler) for row in written[:, begin:].tolist()]


def _ended(ids: list[int], end: int, filler: int | None) -> list[int]:
    """Ids up to the end of sequence; of an answer that a string has ended, without the filler behind it."""
    if end in ids:
        return ids[: ids.index(end)]
    while ids and ids[-1] == filler:
        ids.pop()
    return ids


class Stop(StoppingCriteria):  # type: ignore[misc]
    """Ends an answer that has written a string, whatever tokens it is made of."""

    def __init__(self, tokenizer: Any, text: str, read: int) -> None:
        """Look for `text` behind the first `read` positions."""
        self.tokenizer, self.text, self.read = tokenizer, text, read

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        """Which rows are done, (rows,)."""
        tails = self.tokenizer.batch_decode(input_ids[:, self.read :][:, -_TAIL:])
        return torch.tensor([self.text in tail for tail in tails], device=input_ids.device)
