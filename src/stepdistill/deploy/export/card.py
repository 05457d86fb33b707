"""The model card: what an exported student is, learned, can do and cannot, for people and for the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from stepdistill.config import check
from stepdistill.deploy.bundle import Bundle
from stepdistill.deploy.export import figures, origin
from stepdistill.deploy.export.facts import Facts
from stepdistill.deploy.export.loading import row_shape, snippets
from stepdistill.deploy.export.markdown import block, code, front_matter, inline
from stepdistill.deploy.readout import DEFAULT
from stepdistill.evaluate.bootstrap import Difference, paired
from stepdistill.evaluate.calibration import BINS
from stepdistill.evaluate.statistics import holm
from stepdistill.records import RunRecord
from stepdistill.study.comparisons import p_value, points
from stepdistill.task.schema import TaskSpec

if TYPE_CHECKING:
    import jinja2

_CLOSED = ("label", "choice")
_SCORED = ("label", "both")
"""Forms whose label stands by itself, so that a closed set can be scored."""
_SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Coverages of which a card shows the nearest points: a whole curve has one for each example."""
_ANSWERS = {"number": "a number", "equation": "an equation", "text": "a text"}
_READOUTS = {
    "first": "the log-probability of its first token (and of what follows, among labels that share it)",
    "sum": "the log-probability of all its tokens",
    "mean": "the mean log-probability of its tokens",
}
_FILTERS = {
    "percent": figures.percent,
    "count": figures.count,
    "size": figures.size,
    "ms": figures.milliseconds,
    "short": figures.digits,
    "share": figures.share,
    "usd": figures.dollars,
    "points": points,
    "p": p_value,
}


@dataclass(frozen=True, slots=True)
class Compared:
    """Another predictor of the same run; `difference` is this student's lead, None on other examples."""

    name: str
    record: RunRecord
    difference: Difference | None
    adjusted: float | None = None


def render(bundle: Bundle, proof: Mapping[str, Any], facts: Facts) -> str:
    """The text of `README.md`: YAML for the Hugging Face Hub, then Markdown.

    Whatever stands in a task or a name is shown as text. No example of the data is in it.

    Args:
        bundle: the manifest.
        proof: as `proof.json` has it.
        facts: of the run.

    Raises:
        ConfigError: the task in the student's card is none.
    """
    task = check(TaskSpec, bundle.card["task"], "student.json")
    compared = _compared(facts)
    rows = _coverage(proof.get("coverage") or (), bundle.settings.threshold)
    row = row_shape(task)
    page = _template().render(
        bundle=bundle,
        proof=proof,
        facts=facts,
        card=bundle.card,
        task=task,
        record=facts.record,
        labels=task.answer.labels,
        closed=_is_scored(bundle.card, task),
        answer=_ANSWERS.get(task.answer.kind, "an option"),
        simulated=origin.simulated(task, facts.teachers),
        began=origin.began(bundle.card),
        first_model=None if bundle.card["student"] == "scratch:" else origin.began(bundle.card),
        learned=origin.learned(bundle.card),
        learns_answers=bundle.card["labels"] != "gold" or bundle.card["rationales"] == "teacher",
        control=bundle.card["rationales"] in ("shuffled", "filler", "none"),
        teachers=[origin.teacher(one) for one in facts.teachers],
        compared=compared,
        coverage=rows,
        priced=any(one["usd_per_1000"] is not None for one in rows),
        readout=_READOUTS[bundle.settings.readout or DEFAULT],
        bins=BINS,
        machine=", ".join(f"{key} {value}" for key, value in (proof.get("machine") or {}).items()),
        row=json.dumps(row, ensure_ascii=False),
        loading=snippets(bundle, row),
        versions=_versions(bundle, proof),
    )
    return front_matter(_metadata(bundle, facts, task), _notes(facts)) + page.rstrip() + "\n"


def _metadata(bundle: Bundle, facts: Facts, task: TaskSpec) -> dict[str, Any]:
    """What the Hub reads; `library_name` keeps it from offering a pipeline that would load random weights."""
    kind = "text-classification" if task.answer.kind == "label" else "text-generation"
    tags = [
        "stepdistill",
        "knowledge-distillation",
        bundle.card["method"],
        bundle.card["family"],
        bundle.format,
    ]
    if origin.simulated(task, facts.teachers):
        tags.append("simulation")
    values: dict[str, Any] = {"library_name": "stepdistill", "pipeline_tag": kind, "tags": tags}
    if facts.base_model:
        values |= {"base_model": facts.base_model, "base_model_relation": "finetune"}
    if task.data.hub:
        values["datasets"] = [task.data.hub.id]
    if record := facts.record:
        measured = {
            "type": "accuracy",
            "value": round(record.scorecard.value, 4),
            "name": f"accuracy on {record.scorecard.n} test examples, by free text, before the export",
        }
        data = {"name": task.name, "type": task.data.hub.id if task.data.hub else task.name, "split": "test"}
        result = {"task": {"type": kind}, "dataset": data, "metrics": [measured]}
        values["metrics"] = ["accuracy"]
        values["model-index"] = [{"name": f"{task.name} {facts.name}", "results": [result]}]
    return values


def _notes(facts: Facts) -> tuple[str, ...]:
    base = (
        f" The model that training began with, {facts.base_model}, has a licence of its own."
        if facts.base_model
        else ""
    )
    return (
        "license: yours to choose; mind the terms of the teacher, of the data and of the first model." + base,
        "language: not determined; add the codes of the languages that your texts are in.",
    )


def _compared(facts: Facts) -> list[Compared]:
    """All other predictors of the run; Holm's correction is over all of them."""
    mine = facts.record
    if mine is None:
        return []
    found = [
        Compared(other.name, other, _lead(mine, other)) for other in facts.records if other.name != facts.name
    ]
    ps = [one.difference.p for one in found if one.difference]
    adjusted = iter(holm(ps))
    return [replace(one, adjusted=next(adjusted)) if one.difference else one for one in found]


def _lead(mine: RunRecord, other: RunRecord) -> Difference | None:
    """None where the two were measured on different examples."""
    same = mine.data == other.data and mine.scorecard.n == other.scorecard.n
    return paired(other.scorecard.outcomes, mine.scorecard.outcomes) if same else None


def _coverage(curve: Sequence[Mapping[str, Any]], threshold: float | None) -> list[dict[str, Any]]:
    """Points of the curve by falling coverage: some, and the one of the export's own threshold."""
    ordered = sorted(curve, key=lambda one: -one["coverage"])
    chosen = [next((one for one in ordered if one["coverage"] <= share + 1e-9), None) for share in _SHARES]
    at = [one for one in ordered if one["threshold"] == threshold]
    return [{**one, "chosen": one in at} for one in ordered if one in chosen or one in at]


def _is_scored(card: Mapping[str, Any], task: TaskSpec) -> bool:
    """Whether this folder answers by scoring a closed set, and so with probabilities."""
    return task.answer.kind in _CLOSED and card["form"] in _SCORED


def _versions(bundle: Bundle, proof: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Of libraries, by what was done with them."""
    exported = {"stepdistill": bundle.stepdistill, **(proof.get("versions") or {})}
    return {"Trained": bundle.card["versions"], "Exported": exported}


@cache
def _template() -> jinja2.Template:
    import jinja2
    from markupsafe import Markup

    safe = Markup

    def shown(value: Any) -> Any:
        # The type itself: a subclass is Markdown already.
        return "" if value is None else safe(inline(value)) if type(value) is str else value

    world = jinja2.Environment(
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    world.filters |= {
        "block": lambda text, language="text": safe(block(text, language)),
        "code": lambda text: safe(code(text)),
        **_FILTERS,
    }
    text = (resources.files("stepdistill.deploy.export") / "templates" / "card.md.jinja").read_text("utf-8")
    return world.from_string(text)
