"""What a run would refuse before any work, found for all trials of a study at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from stepdistill.records import unwatched
from stepdistill.study.grid import Trial
from stepdistill.study.job import Job


def check_trials(found: Sequence[Trial]) -> None:
    """Check what can be checked without the trials' folders, once where several are alike.

    Raises:
        StepdistillError: of any kind, as `stepdistill run` of one of them.
    """
    alike: dict[str, list[Trial]] = defaultdict(list)
    for trial in found:
        config = trial.config
        data = config.data.model_copy(update={"fraction": None, "fraction_seed": None})
        parts = (config.task, data, config.annotate, config.evaluate, config.student.model)
        alike[repr((*parts, config.train.test_rationales))].append(trial)
    for some in alike.values():
        config = some[0].config
        data = config.data.model_copy(update={"fraction": None, "fraction_seed": None})
        arms = tuple(dict.fromkeys(trial.arm for trial in some))
        Job(config.model_copy(update={"data": data, "methods": arms}), unwatched).check_run()
