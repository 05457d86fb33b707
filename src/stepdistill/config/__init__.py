"""CONFIG: the YAML file a user writes, as frozen values that are checked when they are made."""

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
    "LimitConfig",
    "LimitsConfig",
    "LoraConfig",
    "Model",
    "PriceConfig",
    "RunConfig",
    "ScratchConfig",
    "StudentConfig",
    "TeacherConfig",
    "TrainConfig",
    "check",
    "flatten",
    "load_run",
    "read_yaml",
]
