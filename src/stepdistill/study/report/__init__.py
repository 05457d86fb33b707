"""What a study or a run has found, as one HTML file that needs nothing else."""

from stepdistill.study.report.page import write_report

__all__ = ["write_report"]
