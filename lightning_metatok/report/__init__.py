"""What finished runs say together: read their folders, group them, read them off at equal budgets."""

from lightning_metatok.report.budgets import Cell, Estimate, cells, estimate, largest_common_budget
from lightning_metatok.report.runs import Condition, Run, conditions, read_run

__all__ = [
    "Cell",
    "Condition",
    "Estimate",
    "Run",
    "cells",
    "conditions",
    "estimate",
    "largest_common_budget",
    "read_run",
]
