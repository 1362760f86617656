"""Whether the processes that a run wants will be there: Lightning waits for ever for those that nobody starts.

Under SLURM Lightning starts none itself, also where `srun` was left out, in a batch script or in a notebook's job.
Asked before anything is built; what is said is what to type.
"""

import os
from typing import Any

import torch
from lightning.fabric.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

from lightning_metatok.errors import UserError

ALONE = "env -u SLURM_NTASKS lightning-metatok ..."
"""Lightning takes no notice of SLURM then, and starts what it needs."""
INTERACTIVE = ("bash", "interactive")
"""Names of jobs in which Lightning takes no notice of SLURM either."""


def check_launch(devices: Any, num_nodes: int, accelerator: str = "auto") -> None:
    """Refuse a run that would wait for processes that nobody starts.

    Args:
        devices, num_nodes, accelerator: the trainer's.

    Raises:
        UserError: SLURM's tasks and the trainer's processes differ, `srun` was left out, or nothing says where the
            other nodes are.
    """
    if TorchElasticEnvironment.detect():
        return
    nodes, a_node = int(num_nodes), n_devices(devices, accelerator)
    wanted = nodes * a_node
    if os.environ.get("SLURM_NTASKS") is None or SLURMEnvironment.job_name() in INTERACTIVE:
        if nodes > 1 and not {"MASTER_ADDR", "NODE_RANK"} <= os.environ.keys():
            raise UserError(
                f"trainer.num_nodes={nodes}: nothing says where the other nodes are; expected 1, or `srun` in a job of "
                f"{nodes} nodes, or MASTER_ADDR and NODE_RANK on each of them"
            )
        return
    ours = f"trainer.devices={devices}" if nodes == 1 else f"trainer.devices={devices} and trainer.num_nodes={nodes}"
    step = os.environ.get("SLURM_STEP_NUM_TASKS")
    if step is None and "SLURM_STEP_ID" not in os.environ:
        tasks = _number("SLURM_NTASKS")
        if tasks > 1 or wanted > 1:
            what = f"SLURM_NTASKS={tasks}" if tasks > 1 else ours
            raise UserError(
                f"{what}: this job of {tasks} tasks was entered without srun, which starts the processes; expected "
                f"`srun --ntasks-per-node={a_node} lightning-metatok ...` for {wanted}, or `{ALONE}` without SLURM"
            )
        return
    tasks = _number("SLURM_NTASKS") if step is None else _number("SLURM_STEP_NUM_TASKS")
    if tasks != wanted:
        raise UserError(
            f"{ours}: {wanted} processes, and srun started {tasks}; expected `srun --nodes={nodes} "
            f"--ntasks-per-node={a_node} lightning-metatok ...`"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in os.environ:  # Lightning insists
        raise UserError(f"SLURM_NTASKS={tasks}: expected --ntasks-per-node={a_node} for srun, not --ntasks={tasks}")


def n_devices(devices: Any, accelerator: str = "auto") -> int:
    """How many processes a node has: `auto` and -1 are all GPUs that are there, or one CPU."""
    if isinstance(devices, list | tuple):
        return len(devices)
    text = str(devices).strip()
    if "," in text:
        return len([part for part in text.split(",") if part.strip()])
    if text.isdecimal():
        return int(text)
    return 1 if accelerator == "cpu" else max(1, torch.cuda.device_count())


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    if not text.isdecimal():
        raise UserError(f"{name}={text}: expected a number of tasks, as SLURM sets it")
    return int(text)
