"""Sweeps: one YAML file becomes many runs, which are launched, watched and collected.

spec     what a sweep file may say
expand   the runs that it stands for, each with an id made of its configuration and the code
folder   where a sweep keeps its plan, its code, its runs and what became of them
local    runs as processes of this machine
slurm    runs as one array job
collect  one table of all runs
"""

from lightning_metatok.sweep.expand import PlannedRun, expand
from lightning_metatok.sweep.folder import SweepFolder
from lightning_metatok.sweep.spec import SweepSpec, read_spec

__all__ = ["PlannedRun", "SweepFolder", "SweepSpec", "expand", "read_spec"]
