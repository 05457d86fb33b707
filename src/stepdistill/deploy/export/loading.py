"""How an exported student is loaded: the lines of code that its model card shows."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepdistill.deploy.bundle import Bundle
from stepdistill.task.schema import TaskSpec, template_fields

BLANK = "…"
"""Stands for a text: nothing of the data is copied into a card."""
_SESSIONS = """from pathlib import Path

import onnxruntime

for path in sorted(Path("DIR").glob("*.onnx")):
    session = onnxruntime.InferenceSession(path)
    print(path.name, [(one.name, one.shape) for one in session.get_inputs()])
"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """Lines of code, and what they are for."""

    title: str
    language: str
    code: str


def row_shape(task: TaskSpec) -> dict[str, Any]:
    """A row as the task's template reads it, with every text left blank.

    >>> from stepdistill.task.load import load_task
    >>> row_shape(load_task("claims").spec)
    {'letter': '…'}
    """
    shape: dict[str, Any] = {}
    names = [name for name in template_fields(task.input) if name != "options" or not task.answer.options]
    for name in names:
        _put(shape, name, BLANK)
    if task.answer.options:
        _put(shape, task.answer.options, [BLANK, BLANK])
    return shape


def snippets(bundle: Bundle, row: Mapping[str, Any]) -> list[Snippet]:
    """By this package, by its server, and by the format's own library."""
    return [_python(bundle, row), _served(bundle), _own(bundle)]


def _put(shape: dict[str, Any], path: str, value: Any) -> None:
    """A column of a row; one with dots lies in objects of its own."""
    *outer, last = path.split(".")
    place = shape
    for part in outer:
        inner = place.setdefault(part, {})
        if not isinstance(inner, dict):
            return
        place = inner
    place.setdefault(last, value)


def _python(bundle: Bundle, row: Mapping[str, Any]) -> Snippet:
    explains = bundle.card.get("explains")
    return Snippet(
        "In Python",
        "python",
        f"""import stepdistill

student = stepdistill.load("DIR")
rows = student.read_input([{json.dumps(row, ensure_ascii=False)}], "rows")
for answer in student.predict(rows{", explain=True" if explains else ""}):
    print(answer.label, answer.confidence, answer.{"rationale" if explains else "reason"})
""",
    )


def _served(bundle: Bundle) -> Snippet:
    asked: dict[str, Any] = {"text": BLANK}
    if bundle.card["task"]["answer"]["kind"] == "choice":
        asked = {"examples": [{**asked, "options": [BLANK, BLANK]}]}
    body = json.dumps(asked, ensure_ascii=False)
    return Snippet(
        "As a server; a text is the input with its columns filled in",
        "bash",
        f"""export STEPDISTILL_API_KEY=$(openssl rand -hex 32)
stepdistill serve DIR --port 8000 &
curl --silent --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:8000/readyz
curl --silent --header "Authorization: Bearer $STEPDISTILL_API_KEY" \\
  --json {shlex.quote(body)} http://127.0.0.1:8000/v1/predict
""",
    )


def _own(bundle: Bundle) -> Snippet:
    pair = bundle.card["family"] == "encoder-decoder"
    table = {
        "huggingface": ("transformers", "python", _transformers_pair if pair else _transformers_causal),
        "ctranslate2": ("CTranslate2", "python", _translator if pair else _generator),
        "onnx": ("ONNX Runtime", "python", lambda _: _SESSIONS),
        "gguf": ("llama.cpp", "bash", _llama),
    }
    library, language, write = table[bundle.format]
    gives = "what its graphs take" if bundle.format == "onnx" else "free text, no probabilities, no threshold"
    return Snippet(f"With {library} alone ({gives})", language, write(bundle))


def _most(bundle: Bundle) -> int:
    return int(bundle.card["new_tokens"]["label"])


def _decodes(bundle: Bundle) -> bool:
    """Whether the task's marker stands before the target, and not before the input."""
    return bool(bundle.card["prefix"] == "decoder")


def _transformers_pair(bundle: Bundle) -> str:
    begin, asked, text = "", "", '"[label] " + "…"'
    if _decodes(bundle):
        text, asked = '"…"', ", decoder_input_ids=torch.tensor([begin])"
        begin = """begin = [model.config.decoder_start_token_id]
begin += tokenizer("[label]", add_special_tokens=False).input_ids
"""
    return f"""import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForSeq2SeqLM.from_pretrained("DIR")
ids = tokenizer({text}).input_ids
{begin}found = model.generate(torch.tensor([ids]){asked}, max_new_tokens={_most(bundle)})
print(tokenizer.decode(found[0], skip_special_tokens=True))
"""


def _transformers_causal(bundle: Bundle) -> str:
    return f"""import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("DIR")
model = AutoModelForCausalLM.from_pretrained("DIR")
ids = tokenizer("…" + "\\n").input_ids + tokenizer("[label]\\n", add_special_tokens=False).input_ids
found = model.generate(torch.tensor([ids]), max_new_tokens={_most(bundle)}, do_sample=False)
print(tokenizer.decode(found[0][len(ids) :], skip_special_tokens=True))
"""


def _translator(bundle: Bundle) -> str:
    text = '"…"' if _decodes(bundle) else '"[label] " + "…"'
    marker = 'tokenizer.encode("[label]", add_special_tokens=False).tokens'
    prefix = f"target_prefix=[{marker}], " if _decodes(bundle) else ""
    return f"""import ctranslate2
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("DIR/tokenizer.json")
model = ctranslate2.Translator("DIR")
tokens = tokenizer.encode({text}).tokens
found = model.translate_batch([tokens], {prefix}beam_size=1, max_decoding_length={_most(bundle)})
print(tokenizer.decode([tokenizer.token_to_id(token) for token in found[0].hypotheses[0]]))
"""


def _generator(bundle: Bundle) -> str:
    return f"""import ctranslate2
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("DIR/tokenizer.json")
model = ctranslate2.Generator("DIR")
tokens = tokenizer.encode("…" + "\\n").tokens
tokens += tokenizer.encode("[label]\\n", add_special_tokens=False).tokens
found = model.generate_batch([tokens], max_length={_most(bundle)}, include_prompt_in_result=False)
print(tokenizer.decode(found[0].sequences_ids[0]))
"""


def _llama(bundle: Bundle) -> str:
    asked = {"messages": [{"role": "user", "content": BLANK}], "temperature": 0, "max_tokens": _most(bundle)}
    return f"""llama-server -m DIR/model.gguf --jinja --port 8080 &
curl --silent --retry 60 --retry-delay 1 --retry-connrefused http://127.0.0.1:8080/health
curl --silent --json {shlex.quote(json.dumps(asked, ensure_ascii=False))} \\
  http://127.0.0.1:8080/v1/chat/completions
"""
