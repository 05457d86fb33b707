"""The way between examples, ledger and backend: asked once, paid once, within the budget, ended."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from asking import answer_all, answer_to, order_of, prompt, reply_to, served, teacher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepdistill.config import LimitsConfig, PriceConfig
from stepdistill.errors import BudgetError, LedgerError
from stepdistill.records import unwatched
from stepdistill.teacher import work as module
from stepdistill.teacher.entry import Entry
from stepdistill.teacher.key import Keys
from stepdistill.teacher.ledger import Ledger
from stepdistill.teacher.prices import Price
from stepdistill.teacher.protocol import (
    Ask,
    Failed,
    Message,
    Prompt,
    Reply,
    Result,
    Sampling,
    Tally,
    as_extra,
    in_batches,
)
from stepdistill.teacher.work import Order, Work

QUIET = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for others takes no time."""
    monkeypatch.setattr(module, "PATIENCE", 0)


@pytest.fixture
def paths(tmp_path: Path) -> Any:
    """Gives a new path each time."""
    return (tmp_path / f"{n}.sqlite" for n in range(100_000))


def some_result(chance: random.Random, ask: Ask) -> Result:
    """A reply, cheap or as dear as it may be, or a failure of any kind."""
    if chance.random() < 0.6:
        tokens = chance.choice([None, 0, 1, 64, 128])
        asked = None if tokens is None else chance.randint(0, 50)
        return Reply(answer_to(ask.prompt.tail[-1].content), "stop", "m", asked, tokens)
    return Failed("timeout", maybe_paid=chance.random() < 0.5, again=chance.random() < 0.7)


@settings(max_examples=25, **QUIET)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(0, 40),
    kinds=st.integers(1, 60),
    want=st.integers(1, 12),
    chunk=st.sampled_from([1, 3, 256]),
)
def test_each_prompt_has_one_answer_and_none_is_granted_twice(
    paths: Any, seed: int, size: int, kinds: int, want: int, chunk: int
) -> None:
    """Two owners with one order, in turns; replies come late, in any order, and some are failures."""
    chance, path = random.Random(seed), next(paths)
    words = [f"question {chance.randrange(kinds)}" for _ in range(size)]
    answered: set[bytes] = set()
    hopeless: set[bytes] = set()
    with pytest.MonkeyPatch.context() as patch, Ledger(path) as one, Ledger(path) as two:
        patch.setattr(module, "CHUNK", chunk)
        works = [Work(ledger, order_of(words), Tally()) for ledger in (one, two)]
        flying: list[list[Ask]] = [[], []]
        for _ in range(5000):
            if all(work.finished for work in works) and not any(flying):
                break
            who = chance.randrange(2)
            chance.shuffle(flying[who])
            done = [flying[who].pop() for _ in range(chance.randint(0, len(flying[who])))]
            results = [(ask, some_result(chance, ask)) for ask in done]
            answered |= {ask.slot for ask, result in results if isinstance(result, Reply)}
            hopeless |= {ask.slot for ask, r in results if isinstance(r, Failed) and not r.again}
            granted = works[who].exchange(results, chance.choice([0, want]))
            assert len(granted) <= want
            slots = [ask.slot for ask in granted]
            assert not set(slots) & answered
            flying[who] += granted
            held = [ask.slot for asks in flying for ask in asks]
            assert len(held) == len(set(held))
        else:
            pytest.fail("it does not end")
        texts = served(path, words)
        assert set(texts.items()) <= {(word, answer_to(word)) for word in words}
        given_up = {word for word in words if order_of(()).keys.slot(prompt(word), 0) in hopeless}
        assert set(words) - set(texts) <= given_up
        for work in works:
            assert work.tally.reused + work.tally.answered + sum(work.tally.failed.values()) >= 0


@settings(max_examples=25, **QUIET)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 30),
    budget=st.integers(0, 3_000_000),
    price=st.sampled_from([Price(1000, 2000, 500), Price(0, 3000, 0), Price(0.3, 0.7, 0.1)]),
)
def test_the_budget_is_never_passed_and_a_raised_one_goes_on(
    paths: Any, seed: int, size: int, budget: int, price: Price
) -> None:
    """The hidden truth is counted too: what a lost reply has really cost."""
    chance, path, truth = random.Random(seed), next(paths), 0
    words = [f"question {n}" for n in range(size)]
    most = budget
    for _ in range(200):
        with Ledger(path) as ledger:
            work = Work(ledger, order_of(words, price=price, max_cost=most), Tally())
            flying: list[Ask] = []
            said = ""
            try:
                while not work.finished or flying:
                    done = [flying.pop() for _ in range(chance.randint(min(1, len(flying)), len(flying)))]
                    results = [(ask, some_result(chance, ask)) for ask in done]
                    for ask, result in results:
                        if isinstance(result, Reply):
                            truth += price.of(result, ask.bound)
                        elif result.maybe_paid:
                            truth += chance.choice([0, ask.bound])
                    flying += work.exchange(results, chance.randint(1, 8))
                    money = ledger.money()
                    assert money.reserved == sum(ask.bound for ask in flying)
                    assert truth <= money.paid + money.presumed <= money.total <= most
            except BudgetError as error:
                said = str(error)
            assert not flying
            assert ledger.money().reserved == 0
            if not said:
                return
            assert "raise it" in said
            assert "\n" not in said
            most += budget + 500_000
    pytest.fail("a raised budget does not go on")


def test_the_budget_is_shared_by_all_who_work_on_the_ledger(tmp_path: Path) -> None:
    words, path = ["a", "b", "c"], tmp_path / "a.sqlite"
    bound = Price(1000, 2000, 1000).bound(prompt("a"), 128)
    with Ledger(path) as one, Ledger(path) as two:
        first = Work(one, order_of(words, max_cost=2 * bound), Tally())
        second = Work(two, order_of(words, max_cost=2 * bound), Tally())
        asks = first.exchange((), 1) + second.exchange((), 3)
        assert len({ask.slot for ask in asks}) == 2
        assert second.exchange((), 3) == []
        assert first.exchange((), 3) == []
        assert one.money().total == 2 * bound
        cheap = Reply("so the answer is 1", "stop", "m", 1, 1)
        assert len(first.exchange([(asks[0], cheap)], 3)) == 0  # 3,000 less than two bounds are left
        second.exchange([(asks[1], cheap)], 0)
        assert len(second.exchange((), 3)) == 1


def test_a_budget_too_small_for_one_answer_says_so_at_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        work = Work(ledger, order_of(["a", "b"], max_cost=100), Tally())
        with pytest.raises(
            BudgetError, match=r"after 0 of 2 answers: 0\.00 USD are paid.*max_cost_usd 1e-07"
        ):
            work.exchange((), 4)


def test_repeated_prompts_are_paid_once_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 4)
    words = [f"question {n % 7}" for n in range(60)]
    with Ledger(tmp_path / "a.sqlite") as ledger:
        asked = answer_all(ledger, order_of(words), 50)
        assert sorted(asked) == sorted(set(words))
        tally = Tally()
        work = Work(ledger, order_of(words), tally)
        assert work.exchange((), 9) == []
        assert work.finished
        assert (tally.reused, tally.answered) == (60, 0)
        assert ledger.money().paid == 7 * Price(1000, 2000, 1000).of(reply_to(prompt("x")), 0)


def test_an_answer_that_arrives_twice_is_stored_and_paid_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        work = Work(ledger, order_of(["a", "b"]), Tally())
        (ask,) = work.exchange((), 1)
        work.exchange([(ask, reply_to(ask.prompt))], 0)
        paid = ledger.money().paid
        work.exchange([(ask, reply_to(ask.prompt))], 0)
        assert ledger.money().paid == paid


def test_a_damaged_answer_is_the_only_one_asked_again(tmp_path: Path) -> None:
    path, words = tmp_path / "a.sqlite", [f"question {n}" for n in range(40)]
    with Ledger(path) as ledger:
        answer_all(ledger, order_of(words))
    raw = path.read_bytes()
    assert raw.count(b"question 17: ") == 1
    path.write_bytes(raw.replace(b"question 17: ", b"question 71: "))
    with Ledger(path) as ledger:
        assert answer_all(ledger, order_of(words)) == ["question 17"]
    assert served(path, words) == {word: answer_to(word) for word in words}


CHANGES: list[tuple[str, dict[str, Any], dict[str, Any], bool]] = [
    ("nothing", {}, {}, True),
    ("model", {"model": "other"}, {}, False),
    ("backend", {"backend": "local"}, {}, False),
    ("api", {"api": "completions", "style": "text"}, {}, False),
    ("temperature", {}, {"temperature": 0.7}, False),
    ("top_p", {}, {"top_p": 0.9}, False),
    ("stop", {}, {"stop": ("\nQ:",)}, False),
    ("extra", {}, {"extra": as_extra({"seed": 1})}, False),
    ("base_url", {"base_url": "http://127.0.0.1:9/v1"}, {}, True),
    ("limits", {"limits": LimitsConfig(concurrency=3, timeout_seconds=1)}, {}, True),
    ("price", {"price": PriceConfig(input=9, output=9)}, {}, True),
    ("key_variable", {"key_variable": "MY_KEY"}, {}, True),
    ("key_header", {"key_header": "api-key"}, {}, True),
    ("token_field", {"token_field": "max_completion_tokens"}, {}, True),
    ("batch_size", {"batch_size": 3}, {}, True),
    ("batch jobs", {"backend": "openai-batch"}, {}, True),
    ("more draws", {"draws": 9}, {}, True),
    ("max_tokens larger", {}, {"max_tokens": 4000}, True),
    ("max_tokens smaller, still enough", {}, {"max_tokens": 100}, True),
    ("max_tokens too small", {}, {"max_tokens": 99}, False),
]


@pytest.mark.parametrize(
    ("config", "sampling", "reused"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES]
)
def test_an_answer_is_reused_where_nothing_could_have_changed_it(
    tmp_path: Path, config: dict[str, Any], sampling: dict[str, Any], reused: bool
) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        answer_all(ledger, order_of(["a"]))
        order = order_of(["a"], Sampling(**{"max_tokens": 128} | sampling), config=teacher(**config))
        assert answer_all(ledger, order) == ([] if reused else ["a"])


@pytest.mark.parametrize(
    ("most", "reused"), [(128, True), (129, False), (127, False)], ids=["same", "larger", "smaller"]
)
def test_a_cut_answer_serves_its_own_limit_only(tmp_path: Path, most: int, reused: bool) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        work = Work(ledger, order_of(["a"]), Tally())
        (ask,) = work.exchange((), 1)
        work.exchange([(ask, reply_to(ask.prompt, "length"))], 0)
        assert answer_all(ledger, order_of(["a"], Sampling(max_tokens=most))) == ([] if reused else ["a"])


@pytest.mark.parametrize("what", ["head", "tail", "draw", "role"])
def test_another_prompt_or_draw_is_another_question(tmp_path: Path, what: str) -> None:
    def order(one: Prompt, draw: int) -> Order:
        sampling = Sampling(max_tokens=128)
        return Order(
            "ask", lambda: [("id", one, draw)], 1, Keys(teacher(), sampling), sampling, None, None, unwatched
        )

    head, tail = Message("system", "Examples."), Message("user", "Question.")
    changed = {
        "head": (Prompt((Message("system", "Other examples."),), (tail,)), 0),
        "tail": (Prompt((head,), (Message("user", "Question?"),)), 0),
        "draw": (Prompt((head,), (tail,)), 1),
        "role": (Prompt((Message("user", "Examples."),), (tail,)), 0),
    }
    with Ledger(tmp_path / "a.sqlite") as ledger:
        assert len(answer_all(ledger, order(Prompt((head,), (tail,)), 0))) == 1
        assert len(answer_all(ledger, order(Prompt((head,), (tail,)), 0))) == 0
        assert len(answer_all(ledger, order(Prompt((), (head, tail)), 0))) == 0
        assert len(answer_all(ledger, order(*changed[what]))) == 1


def test_what_the_other_process_is_asking_is_waited_for_and_then_reused(tmp_path: Path) -> None:
    path, words = tmp_path / "a.sqlite", ["a", "b", "c"]
    with Ledger(path) as one, Ledger(path) as two:
        first, second = Work(one, order_of(words), Tally()), Work(two, order_of(words), Tally())
        (ask,) = first.exchange((), 1)
        others = second.exchange((), 5)
        assert [other.example_id for other in others] == ["id-b", "id-c"]
        assert second.exchange([(other, reply_to(other.prompt)) for other in others], 5) == []
        assert second.exchange((), 5) == []
        assert not second.finished
        first.exchange([(ask, reply_to(ask.prompt))], 5)
        assert first.finished
        for _ in range(3):
            second.exchange((), 5)
        assert second.finished
        assert (second.tally.answered, second.tally.reused) == (2, 1)


def test_a_failed_ask_is_tried_again_only_where_it_is_wanted(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        tally = Tally()
        work = Work(ledger, order_of(["a", "b"]), tally)
        a, b = work.exchange((), 2)
        again = work.exchange([(a, Failed("timeout", again=True)), (b, Failed("content_filter"))], 2)
        assert [ask.slot for ask in again] == [a.slot]
        work.exchange([(a, reply_to(a.prompt))], 2)
        assert work.finished
        assert tally.failed == {"content_filter": 1}
        assert (tally.answered, ledger.money().presumed) == (1, 0)


def test_a_free_teacher_goes_on_where_the_budget_is_used_up(tmp_path: Path) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        with ledger.transaction():
            ledger.charge("paid", 5)
        work = Work(ledger, order_of(["x"], price=Price(0, 0, 0), max_cost=3), Tally())
        assert len(work.exchange((), 1)) == 1


@pytest.mark.parametrize(
    ("finish", "used", "cut"),
    [
        ("stop", 128, False),
        ("length", 3, True),
        ("unknown", 127, False),
        ("unknown", 128, True),
        ("abort", None, True),
    ],
)
def test_an_answer_that_may_have_been_cut_serves_no_larger_limit(
    finish: str, used: int | None, cut: bool
) -> None:
    entry = Entry(b"s", 128, 0, "words", finish, "m", 1, used, 1)
    assert (entry.is_cut, entry.serves(256)) == (cut, not cut)


def test_a_prompt_that_is_too_long_is_a_failure_and_the_others_are_answered(tmp_path: Path) -> None:
    asked: list[str] = []

    def complete(prompts: list[Prompt], sampling: Sampling, draws: list[int]) -> list[Reply]:
        asked.extend(one.text for one in prompts)
        return [reply_to(one) for one in prompts]

    with Ledger(tmp_path / "a.sqlite") as ledger:
        work = Work(ledger, order_of(["short", "much too long", "brief"]), Tally())
        in_batches(work, complete, 2, lambda one: "9 tokens, 8 fit" if "long" in one.text else None)
    assert len(asked) == 2
    assert (work.tally.answered, work.tally.failed) == (2, {"prompt too long": 1})


def test_where_the_disk_is_nearly_full_what_is_on_its_way_is_stored_and_nothing_more_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger(tmp_path / "a.sqlite") as ledger:
        work = Work(ledger, order_of(["a", "b", "c"]), Tally())
        (ask,) = work.exchange((), 1)
        monkeypatch.setattr(Ledger, "has_room", lambda self, answers: False)
        assert work.exchange((), 1) == []
        with pytest.raises(LedgerError, match="nearly full"):
            work.exchange([(ask, reply_to(ask.prompt))], 1)
        assert work.tally.answered == 1
        assert ledger.find([ask.slot], 128)[0]
