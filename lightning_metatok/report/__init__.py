"""What finished runs say together: read their folders, group them, sum them up over seeds, compare their ends."""

from lightning_metatok.report.budgets import Cell, cells
from lightning_metatok.report.estimates import Difference, Estimate, difference, estimate
from lightning_metatok.report.runs import Condition, Run, conditions, read_run

__all__ = [
    "Cell",
    "Condition",
    "Difference",
    "Estimate",
    "Run",
    "cells",
    "conditions",
    "difference",
    "estimate",
    "read_run",
]
