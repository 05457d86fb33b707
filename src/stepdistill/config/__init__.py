"""CONFIG: the YAML file a user writes, as frozen values that are checked when they are made."""

from stepdistill.config.evaluate import EvaluateConfig
from stepdistill.config.run import (
    DataConfig,
    LimitConfig,
    LoraConfig,
    RunConfig,
    ScratchConfig,
    StudentConfig,
    load_run,
)
from stepdistill.config.strict import Model, check, flatten, read_yaml
from stepdistill.config.study import GridConfig, MinimumConfig, StudyConfig, load_study
from stepdistill.config.teacher import (
    AnnotateConfig,
    DemonstrationConfig,
    LimitsConfig,
    PriceConfig,
    TeacherConfig,
)
from stepdistill.config.train import TrainConfig

__all__ = [
    "AnnotateConfig",
    "DataConfig",
    "DemonstrationConfig",
    "EvaluateConfig",
    "GridConfig",
    "LimitConfig",
    "LimitsConfig",
    "LoraConfig",
    "MinimumConfig",
    "Model",
    "PriceConfig",
    "RunConfig",
    "ScratchConfig",
    "StudentConfig",
    "StudyConfig",
    "TeacherConfig",
    "TrainConfig",
    "check",
    "flatten",
    "load_run",
    "load_study",
    "read_yaml",
]
