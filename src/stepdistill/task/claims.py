"""Simulated letters to an insurer: the quickstart data of stepdistill.

This data is a SIMULATION. No customer wrote these letters and no insurer decides by these rules:
a seeded generator draws facts, words them as a letter and applies the rules. What it shares with
real work is the shape: a few facts must be read from free text and combined in order.

The rules, in the order of thought; the first that settles the letter ends it:

1. Someone was hurt: ``escalate`` with the papers, ``ask`` without them, whatever else holds.
2. The policy was over in the month of the damage: ``deny``. It is in force up to and including
   the month in which it ends. All months that count lie in the same year.
3. The cause is one of `EXCLUDED`, not one of `COVERED`: ``deny``.
4. The papers are missing: ``ask``.
5. More than `LIMIT` earlier claims this year: ``escalate``. Otherwise: ``approve``.

Letters also carry a remark that has no bearing on the decision, yet may name another month, a
number, or an event of the same kind as those that count. No text contains a label word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TypeVar

LABELS = ("approve", "ask", "deny", "escalate")
LIMIT = 2
MONTHS = ("January", "February", "March", "April", "May", "June",
          "July", "August", "September", "October", "November", "December")  # fmt: skip

_T = TypeVar("_T")
_NUMBERS = ("no", "one", "two", "three", "four", "five")

# Causes of damage, each with the clauses by which a letter may report it.
COVERED: dict[str, tuple[str, ...]] = {
    "a storm": ("a storm tore tiles off the roof", "strong wind blew the chimney down",
                "a gale broke the kitchen window"),
    "a fire": ("a fire burned out the kitchen", "a candle set the curtains on fire",
               "flames from the stove ruined a wall"),
    "a burst pipe": ("a water pipe burst in the wall", "a burst pipe ruined the floor",
                     "a pipe burst and flooded the cellar"),
    "a break-in": ("thieves emptied the garage", "burglars stole the silver spoons",
                   "someone broke in and stole the television"),
    "lightning": ("lightning hit the chimney", "lightning struck and ruined the wiring",
                  "a flash of lightning destroyed the stove"),
    "hail": ("hail smashed the greenhouse", "hail broke the garage roof", "hail broke a window"),
}  # fmt: skip
EXCLUDED: dict[str, tuple[str, ...]] = {
    "wear": ("the garage roof, worn out by age, fell in", "the stove broke from long use",
             "an old stair, worn through, gave way"),
    "groundwater": ("groundwater filled the cellar", "groundwater came up through the floor",
                    "groundwater soaked a wall until it fell"),
    "own work": ("I cut a water pipe doing the bathroom myself", "a shelf I built myself fell down",
                 "my own work on the roof brought tiles down"),
    "sinking ground": ("the ground sank and a wall cracked", "sinking soil broke the chimney",
                       "the garage floor broke as the ground sank"),
    "pests": ("a ceiling eaten away by mice fell in", "rats chewed through the wiring",
              "beetles ate the kitchen floor hollow"),
    "clumsiness": ("I dropped the television on the floor", "I clumsily drove into the garage",
                   "I let a heavy pan fall through the window"),
}  # fmt: skip
CAUSES = COVERED | EXCLUDED

_OPENINGS = (
    "Dear Sir or Madam, I must report damage.", "Hello, we have had some damage.",
    "Good morning, this is about my claim.", "Here is a new case for the claims office.",
    "Dear team, I turn to you with a claim.", "Good afternoon, please consider this case.",
    "Hello, I hope you can help me.", "Good evening, kindly read my report.",
)  # fmt: skip
_DAMAGE = (
    "In {month} {clause}.", "It was in {month} that {clause}.",
    "{clause}, and that was in {month}.", "This happened in {month}: {clause}.",
    "What happened in {month} is that {clause}.", "{month} was the month in which {clause}.",
)  # fmt: skip
_POLICY = (
    "My policy ends in {until} this year.", "My policy runs to the end of {until} this year.",
    "My insurance lasts through {until} this year.", "My contract expires this year, in {until}.",
    "The last month of my policy is {until} this year.", "My cover ends in {until} this year.",
)  # fmt: skip
# Each line words the same fact as false and as true; in most, the two share their nouns.
_PAPERS = (
    ("The receipts are not enclosed.", "The receipts are enclosed."),
    ("I have not found the receipts yet.", "I have enclosed the receipts."),
    ("The papers are missing from this letter.", "The papers are enclosed with this letter."),
    ("I will send the bills later.", "I send the bills with this letter."),
    ("I still have to find all the bills.", "All the bills are enclosed."),
    ("Bills and photographs are yet to follow.", "Bills and photographs are enclosed too."),
)
_HURT = (
    ("Nobody was hurt, thank God.", "My {who} was hurt and saw a doctor."),
    ("Luckily nobody was injured.", "Sadly my {who} was injured."),
    ("All of us are unharmed.", "My {who} broke an arm."),
    ("Neither my {who} nor anyone else was hurt.", "My {who} had to go to hospital."),
)
_EARLIER = (
    "I have made {claims} this year.", "This year you have had {claims} from me.",
    "Your files should show {claims} this year.", "Before this letter I sent {claims} this year.",
    "I count {claims} this year besides this one.", "I know of {claims} of mine this year.",
)  # fmt: skip
_REMARKS = (
    "Our grey cat has slept badly for days.", "The weather is mild and the garden green.",
    "The white puppy next door barks at night.", "I once worked in a busy office myself.",
    "My uncle is insured elsewhere until {other}.", "Our next holiday is booked for {other}.",
    "My birthday is in {other}, by the way.", "The big storm in {other} left us in peace.",
    "The fire at the bakery in {other} was far away.", "For our roses, {other} was the best month.",
    "My tax papers were complete in {other}.", "My aunt made {number} claims elsewhere last year.",
    "We keep {number} hens and an old brown horse.", "A friend was hurt on skis last winter.",
    "My nephew was hurt at school in {other}.", "A colleague lost the receipts for his boat.",
    "Trains have been late here since {other}.", "My team won {number} games and then lost badly.",
    "We drink tea with neighbours on Sundays.", "An owl lives in the apple tree behind our house.",
    "My bicycle, bought in {other}, squeaks.", "Fresh bread from our village tastes best.",
    "Our piano needs tuning before the concert in {other}.", "The church choir sings on Fridays.",
)  # fmt: skip
_CLOSINGS = (
    "Many thanks in advance, {name}", "With warm regards, {name}", "Yours sincerely, {name}",
    "Please write soon. Best wishes, {name}", "Thank you for reading this, {name}",
)  # fmt: skip
_PEOPLE = ("wife", "husband", "son", "daughter", "mother", "father", "sister", "brother")
_NAMES = ("Ruth", "Tom", "Anna", "Omar", "Grace", "Peter", "Mei", "Luis", "Ivy", "Paul", "Nora")

# Pairs (until, month) in the first half of the year, at most four months apart: far apart, one month
# alone would often settle the comparison; over the whole year, 1,000 letters show each pair too
# seldom for a student that starts from random weights. Same month for both: in force.
_USED = range(1, 7)
_IN_FORCE = [(u, m) for u in _USED for m in _USED if 0 <= u - m <= 4]
_OVER = [(u, m) for u in _USED for m in _USED if 1 <= m - u <= 4]


@dataclass(frozen=True, slots=True)
class Facts:
    """What is true in one letter. Months are numbered 1 to 12 and lie in the same year.

    Raises ValueError for a month, a cause or a number of earlier claims the letters cannot word.
    """

    until: int  # the month in which the policy ends
    month: int  # the month of the damage
    cause: str  # a key of `COVERED` or `EXCLUDED`
    papers: bool  # the papers are enclosed
    earlier: int  # earlier claims this year, 0 to 5
    hurt: bool  # someone was hurt

    def __post_init__(self) -> None:
        months = 1 <= self.until <= 12 and 1 <= self.month <= 12
        if not (months and self.cause in CAUSES and 0 <= self.earlier < len(_NUMBERS)):
            raise ValueError(f"no letter can state these facts: {self}")


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter: the facts and the text that states them."""

    facts: Facts
    text: str

    @property
    def label(self) -> str:
        """The decision on this letter, one of `LABELS`."""
        return decide(self.facts)

    @property
    def conclusions(self) -> tuple[str, ...]:
        """The two to four conclusions that lead to the label, in the order of thought."""
        return _think(self.facts)[0]


def letters(n: int, seed: int) -> list[Letter]:
    """Return `n` letters with distinct texts; the labels are drawn with equal probability.

    The same seed gives the same letters everywhere, and fewer letters are a prefix of more.
    Raises ValueError if `n` or `seed` is negative.

    >>> letters(10, seed=1) == letters(20, seed=1)[:10]
    True
    """
    # Random(-1) draws the same numbers as Random(1), so two seeds would share one data set.
    if n < 0 or seed < 0:
        raise ValueError(f"n and seed must not be negative, got {n} and {seed}")
    rng = Random(seed)
    found: dict[str, Letter] = {}
    while len(found) < n:
        facts = _draw(rng, _pick(rng, LABELS))
        text = _write(rng, facts)
        found.setdefault(text, Letter(facts, text))
    return list(found.values())


def rationale(facts: Facts) -> str:
    """Return the conclusions that lead to the label, joined by a space.

    >>> rationale(Facts(until=5, month=6, cause="a fire", papers=True, earlier=0, hurt=False))
    'Nobody was hurt. The policy ran until May and the damage was in June, so it was over.'
    """
    return " ".join(_think(facts)[0])


def decide(facts: Facts) -> str:
    """Return the label, one of `LABELS`, that the rules of this module give to `facts`.

    >>> decide(Facts(until=5, month=6, cause="a fire", papers=True, earlier=0, hurt=False))
    'deny'
    """
    return _think(facts)[1]


def misreadings(facts: Facts) -> list[Facts]:
    """Return all facts that differ from `facts` in one field and lead to another label.

    The list is never empty: where someone was hurt, the papers alone decide; where nobody was
    hurt, misreading that, the papers or the number of earlier claims changes the label.

    >>> facts = Facts(until=5, month=6, cause="a fire", papers=True, earlier=0, hurt=True)
    >>> [decide(wrong) for wrong in misreadings(facts)]
    ['ask', 'deny']
    """
    readings = [replace(facts, until=until) for until in _USED]
    readings += [replace(facts, month=month) for month in _USED]
    readings += [replace(facts, cause=cause) for cause in CAUSES]
    readings += [replace(facts, earlier=earlier) for earlier in range(len(_NUMBERS))]
    readings += [replace(facts, papers=not facts.papers), replace(facts, hurt=not facts.hurt)]
    return [reading for reading in readings if decide(reading) != decide(facts)]


def _think(facts: Facts) -> tuple[tuple[str, ...], str]:
    """Apply the rules: the conclusions and the label they lead to, written down side by side."""
    papers = f"The papers are {'enclosed' if facts.papers else 'missing'}"
    if facts.hurt:
        return ("Someone was hurt.", f"{papers}."), "escalate" if facts.papers else "ask"

    in_force = facts.month <= facts.until
    until, month = MONTHS[facts.until - 1], MONTHS[facts.month - 1]
    policy = f"The policy ran until {until} and the damage was in {month}, so it was "
    policy += "in force." if in_force else "over."
    thoughts: tuple[str, ...] = ("Nobody was hurt.", policy)
    if not in_force:
        return thoughts, "deny"

    covered = facts.cause in COVERED
    thoughts += (f"{_capital(facts.cause)} is {'covered' if covered else 'excluded'}.",)
    if not covered:
        return thoughts, "deny"
    if not facts.papers:
        return (*thoughts, f"{papers}."), "ask"

    count = f"there {'were' if facts.earlier > 1 else 'was'} {_claims(facts.earlier)}"
    many = facts.earlier > LIMIT
    count += f", {'over' if many else 'within'} the limit"
    return (*thoughts, f"{papers} and {count}."), "escalate" if many else "approve"


def _draw(rng: Random, label: str) -> Facts:
    """Draw facts until they lead to `label`, so that labels are even and facts stay mixed."""
    while True:
        until, month = _pick(rng, _OVER if rng.random() < 0.5 else _IN_FORCE)
        facts = Facts(
            until=until,
            month=month,
            cause=_pick(rng, tuple(EXCLUDED if rng.random() < 0.3 else COVERED)),
            papers=rng.random() < 0.6,
            earlier=_pick(rng, range(LIMIT + 1, 6) if rng.random() < 0.4 else range(LIMIT + 1)),
            hurt=rng.random() < 0.15,
        )
        if decide(facts) == label:
            return facts


def _write(rng: Random, facts: Facts) -> str:
    """Word the facts as a letter, the sentences between opening and closing in any order."""
    until, month = MONTHS[facts.until - 1], MONTHS[facts.month - 1]
    words = {
        "until": until,
        "month": month,
        "clause": _pick(rng, CAUSES[facts.cause]),
        "claims": _claims(facts.earlier),
        "who": _pick(rng, _PEOPLE),
        # A remark must not contradict the facts, so it never names one of their months.
        "other": _pick(rng, [other for other in MONTHS if other not in (until, month)]),
        "number": _pick(rng, _NUMBERS[2:]),
        "name": _pick(rng, _NAMES),
    }
    body = [_pick(rng, wordings) for wordings in (_DAMAGE, _POLICY, _EARLIER, _REMARKS)]
    body += [_pick(rng, _PAPERS)[facts.papers], _pick(rng, _HURT)[facts.hurt]]
    body.sort(key=lambda _: rng.random())
    sentences = (_pick(rng, _OPENINGS), *body, _pick(rng, _CLOSINGS))
    return " ".join(_capital(sentence.format_map(words)) for sentence in sentences)


def _claims(number: int) -> str:
    return f"{_NUMBERS[number]} earlier claim{'s' if number > 1 else ''}"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _pick(rng: Random, items: Sequence[_T]) -> _T:
    # Python promises the same random() for a seed in every version, but not the same choice().
    return items[int(rng.random() * len(items))]
