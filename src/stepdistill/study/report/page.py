"""The report: what a folder holds, collected and written as one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stepdistill.errors import DataError, RunFolderError
from stepdistill.files import write_text
from stepdistill.study.folder import TEACHER
from stepdistill.study.gather import gather
from stepdistill.study.report import evidence, results
from stepdistill.study.report.cautions import cautions, simulated
from stepdistill.study.report.clean import embed, finalize, nowhere, source_hash
from stepdistill.study.report.evidence import Picture
from stepdistill.study.report.ledger import Ledger, ledgers
from stepdistill.study.report.minimum import Minimum, read_minimum
from stepdistill.study.report.mistakes import SHOWN, Group, find_mistakes
from stepdistill.study.report.place import Place, Trial, find_place
from stepdistill.study.report.settings import command, hashes, settings, versions
from stepdistill.study.report.table import Table
from stepdistill.study.results import ResultRow
from stepdistill.study.whole import STUDY

if TYPE_CHECKING:
    import jinja2

NAME = "report.html"


@dataclass(frozen=True)
class Page:
    """All that the template shows, in its order."""

    kind: str
    title: str
    facts: Sequence[tuple[str, str]]
    simulated: Sequence[str]
    verdicts: Sequence[str]
    no_verdict: str
    cautions: Sequence[str]
    figures: Sequence[Picture]
    undrawn: Sequence[tuple[str, str]]
    tables: Sequence[Table]
    absent: Sequence[str]
    minimum: Minimum | None
    published: Table | None
    ledgers: Sequence[Ledger]
    failures: Sequence[Trial]
    groups: Sequence[Group]
    shown: int
    command: str
    settings: str
    settings_name: str
    hashes: Table
    folders: Sequence[Path]
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Ids and titles of the sections that the page has."""
        there: list[tuple[str, str, Any]] = [
            ("verdict", "Verdict", True),
            ("figures", "Figures", self.figures or self.undrawn),
            ("tables", "Tables", True),
            ("minimum", "Minimum recipe", self.minimum),
            ("published", "Published numbers", self.published),
            ("answers", "Teacher's answers", self.ledgers),
            ("failures", "Failures", self.failures),
            ("mistakes", "Wrong answers", self.groups),
            ("reproduce", "Reproduce", True),
        ]
        return [(name, title) for name, title, is_there in there if is_there]


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the report on a study folder or a run folder; an unfinished one is shown as far as it is.

    The figures are written into `folder/figures/` too.

    Args:
        folder: the `out` of a study or a run.
        out: the HTML file; `folder/report.html` if None.

    Raises:
        RunFolderError: no such folder, or nothing in it was measured yet; or `out` cannot be written.
        DataError: a file of the folder is damaged.
    """
    place = find_place(folder.expanduser())
    target = out.expanduser() if out else place.path / NAME
    if target.is_dir():
        raise RunFolderError(f"{target}: is a folder; give the name of a file, e.g. {target / NAME}")
    write_text(target, render(collect(place)))
    return target


def collect(place: Place) -> Page:
    """Read what the page shows.

    Raises:
        RunFolderError: nothing was measured yet.
        DataError: a file of the folder is damaged.
    """
    rows = _rows(place)
    study = place.study
    method, against = (study.method, study.against) if study else ("step-by-step", "finetune")
    scores = {name: list(trial.rows("metrics.jsonl")) for name, trial in place.trials.items()}
    best = results.chosen(rows)
    pair = evidence.sides(rows, method, against)
    figures, undrawn = evidence.figures(rows, scores, place.path, *(pair or (method, against)))
    return Page(
        kind="Study" if place.is_study else "Run",
        title=_title(place, rows),
        facts=_facts(place, rows),
        simulated=simulated(place),
        verdicts=evidence.verdicts(rows, method, against),
        no_verdict="Only one predictor is measured, so there is nothing to compare.",
        cautions=cautions(place, rows, pair),
        figures=figures,
        undrawn=undrawn,
        tables=_tables(rows, best, scores, method, against),
        absent=_absent(scores),
        minimum=read_minimum(place),
        published=evidence.published(rows, study.published) if study and study.published else None,
        ledgers=ledgers(place),
        failures=place.failed,
        folders=place.folders,
        groups=find_mistakes(place, best),
        shown=SHOWN,
        command=command(place),
        settings=settings(place),
        settings_name=STUDY if place.is_study else "run.yaml",
        hashes=hashes(rows),
        versions=versions(place),
    )


def render(page: Page) -> str:
    """The page as HTML; every text of it is shown as text, whatever stands in it."""
    from markupsafe import Markup

    safe = Markup
    style, script = (_file(name) for name in ("style.css", "script.js"))
    return _template().render(
        page=page,
        # Ours, and JSON without markup: escaped, they would be something else than what the hashes name.
        style=safe(style),
        script=safe(script),
        style_hash=source_hash(style),
        script_hash=source_hash(script),
        data=safe(embed([group.counts for group in page.groups])),
    )


def _file(name: str) -> str:
    return (resources.files("stepdistill.study.report") / name).read_text("utf-8")


@cache
def _template() -> jinja2.Template:
    import jinja2

    world = jinja2.Environment(
        autoescape=True,
        finalize=finalize,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    world.globals["nowhere"] = nowhere
    return world.from_string(_file("template.html.jinja"))


def _tables(
    rows: Sequence[ResultRow], best: Sequence[ResultRow], scores: results.Scores, method: str, against: str
) -> list[Table]:
    several = len({row.seed for row in rows if row.name != TEACHER}) > 1
    made = [
        *evidence.comparisons(rows, method, against),
        *([results.means(rows)] if several else []),
        results.all_results(rows),
        results.measured(best, scores),
        results.by_label(best, scores),
        results.by_slice(best, scores),
    ]
    return [table for table in made if table.rows]


def _absent(scores: results.Scores) -> list[str]:
    if any(scores.values()):
        return []
    return [
        "No metrics beside accuracy (metrics.jsonl) are in this folder: start the run or study again to have "
        "them written; nothing is trained anew."
    ]


def _title(place: Place, rows: Sequence[ResultRow]) -> str:
    tasks = ", ".join(dict.fromkeys(row.task for row in rows))
    return (place.study.title if place.study else "") or tasks


def _facts(place: Place, rows: Sequence[ResultRow]) -> list[tuple[str, str]]:
    from stepdistill.study.figures.accuracy import count

    tasks = list(dict.fromkeys(row.task for row in rows))
    students = [row for row in rows if row.name != TEACHER]
    tests = dict.fromkeys((row.task, row.n) for row in rows)
    seeds = {row.seed for row in students}
    found = [("task" if len(tasks) == 1 else "tasks", ", ".join(tasks))]
    found += [("test examples", " + ".join(f"{n:,}" for _, n in tests))]
    found += [("methods", str(len({row.name for row in students})))] if students else []
    found += [("seeds", str(len(seeds)))] if students else []
    if place.is_study:
        measured = len({row.trial for row in rows})
        found.append(
            (
                "trials",
                f"{measured} of {len(place.trials)}" if measured < len(place.trials) else str(measured),
            )
        )
    sizes = sorted({row.parameters for row in students if row.parameters})
    if sizes:
        found.append(("student", " to ".join(dict.fromkeys(count(size) for size in (sizes[0], sizes[-1])))))
    return found


def _rows(place: Place) -> list[ResultRow]:
    try:
        rows = gather(place.path)
    except DataError:
        failed = place.failed
        if not failed or not failed[0].outcome:
            raise
        raise RunFolderError(
            f"{place.path}: no trial has a result: {len(failed)} of {len(place.trials)} failed, the first "
            f"({failed[0].name}) with: {failed[0].outcome.error}"
        ) from None
    shown: dict[str, str] = {}
    for name in sorted({name for row in rows for name in (row.teacher, row.labels)}):
        alike = [one for one in shown if nowhere(one) == nowhere(name)]
        # Models of one name in two folders stay two.
        shown[name] = nowhere(name) + (f" ({len(alike) + 1})" if alike else "")
    return [replace(row, teacher=shown[row.teacher], labels=shown[row.labels]) for row in rows]
