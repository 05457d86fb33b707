"""Random parts of the training examples that nest: what is in a tenth of them is in a fifth of them too."""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from stepdistill.task.stream import Examples, pick

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def portion(examples: Examples, fraction: float, seed: int, by_label: bool) -> Examples:
    """A random part of the examples, in their order: `round(fraction * n)` of them, at least one.

    Parts of one seed nest. With `by_label` each label (unlabelled is one too) has its share of the whole,
    to within a few examples. Membership depends on ids, labels and the seed alone, so that methods and
    machines agree on it. Memory: 17 bytes an example while it is found, 8 for each that is kept.

    Args:
        examples: those to choose from.
        fraction: above 0, at most 1.
        seed: another seed is another family of parts.
        by_label: whether labels keep their shares (closed label sets).
    """
    if fraction >= 1 or not examples:
        return examples
    places = _order(examples, seed, by_label)[: max(1, round(fraction * len(examples)))]
    places.sort()
    return Examples(lambda: pick(examples, places.tolist(), inside=True), len(places))


def _order(examples: Examples, seed: int, by_label: bool) -> npt.NDArray[np.int64]:
    """All places, such that every beginning of the list is a random part with the labels' shares.

    The k-th of a label's n examples, in an order drawn by hash, stands at (k + u) / n of the way, u drawn
    once for the label: were it 1/2 for all, labels with one example would all enter together at one half.
    """
    import numpy as np  # asking a teacher over HTTP does without

    names: dict[str | None, int] = {}
    draws = np.empty(len(examples), dtype=np.uint64)
    labels = np.zeros(len(examples), dtype=np.int32)
    for place, example in enumerate(examples):
        draws[place] = _draw(example.id, seed)
        if by_label:
            labels[place] = names.setdefault(example.label, len(names))
    way = np.empty(len(examples))
    for name, label in (names or {None: 0}).items():
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(draws[members], kind="stable")]
        start = _draw(f"label {name}", seed) / 2**64
        way[members] = (np.arange(len(members)) + start) / len(members)
    return np.lexsort((draws, way))


def _draw(id_: str, seed: int) -> int:
    text = f"{seed}:{id_}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little")
