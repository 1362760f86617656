"""`lightning-metatok doctor`: what this machine has, and what the framework makes of it.

Everything is found by asking or by running: an attention backend counts only if a small kernel of it really
ran, the allocator only if glibc accepted the settings. `--json` prints the same report for programs.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rich.markup
import rich.table

from lightning_metatok import __version__, runtime
from lightning_metatok.console import printer
from lightning_metatok.errors import OptionParser

PACKAGES = (
    "torch",
    "lightning",
    "torchmetrics",
    "xformers",
    "datasets",
    "tokenizers",
    "transformers",
    "tensorboard",
    "jsonargparse",
    "omegaconf",
)
MIB = 1 << 20
GIB = 1 << 30

Report = dict[str, dict[str, Any]]
"""Section -> row -> value; every value is one that JSON has."""


def examine() -> Report:
    """Return what is known of this process and its machine."""
    return {
        "versions": _versions(),
        "cpu": _cpu(),
        "gpu": _gpus(),
        "training": {"precision that auto takes": runtime.resolve_precision("auto")},
        "attention backends": _attention_backends(),
        "slurm": _slurm(),
        "cache": _cache(),
    }


def _versions() -> dict[str, Any]:
    versions = {"lightning-metatok": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _cpu() -> dict[str, Any]:
    import torch

    if runtime.user_tunes_allocator():
        allocator = "set by the user's environment"
    else:
        allocator = "keeps freed buffers" if runtime.tune_allocator() else "defaults of the C library"
    return {
        "model": _cpu_model(),
        "cores for this process": len(runtime.usable_cores()),
        "threads torch uses": torch.get_num_threads(),
        "bf16 in hardware": runtime.cpu_has_bf16(),
        "allocator": allocator,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "not set"),
    }


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _gpus() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        built_for = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        return {"found": f"none (torch is {built_for})"}
    gpus: dict[str, Any] = {"CUDA of torch": torch.version.cuda, "driver": _driver()}
    for index in range(torch.cuda.device_count()):
        gpu = torch.cuda.get_device_properties(index)
        gpus[f"cuda:{index}"] = f"{gpu.name}, {gpu.total_memory / GIB:.1f} GiB, capability {gpu.major}.{gpu.minor}"
    return gpus


def _driver() -> str:
    if shutil.which("nvidia-smi") is None:
        return "nvidia-smi not found"
    return _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])


def _attention_backends() -> dict[str, Any]:
    import torch

    from lightning_metatok.model.attention.backends import picks, try_backends

    device = "cuda" if torch.cuda.is_available() else "cpu"
    chosen = {f"auto for {pattern}": picked for pattern, picked in picks(device).items()}
    return {"tried on": device, **try_backends(device), **chosen}


def _slurm() -> dict[str, Any]:
    if shutil.which("sbatch") is None:
        return {"sbatch": "not found"}
    return {"sbatch": _first_line(["sbatch", "--version"])}


def _cache() -> dict[str, Any]:
    from lightning_metatok.data.cache import cache_folder

    folder = cache_folder()
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if os.path.exists(parent))
    return {
        "folder": str(folder),
        "size in MiB": round(sum(path.lstat().st_size for path in files) / MIB, 1),
        "free on its disk in GiB": round(shutil.disk_usage(existing).free / GIB, 1),
    }


def _first_line(command: list[str]) -> str:
    """Run `command` and return the first line that it prints, or what kept it from answering."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"no answer: {error}"
    lines = (done.stdout.strip() or done.stderr.strip()).splitlines()
    return lines[0] if lines else f"no answer: exit code {done.returncode}"


def show(report: Report) -> None:
    """Print the report as one table with a part for each section."""
    table = rich.table.Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for section, rows in report.items():
        table.add_row(f"[bold]{section}[/bold]")
        for name, value in rows.items():
            text = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
            table.add_row(f"  {name}", rich.markup.escape(text))
    printer().print(table)


def main(verb: str, argv: Sequence[str]) -> int:
    """Run the verb with its own arguments and return the exit code."""
    parser = OptionParser(
        prog=f"lightning-metatok {verb}", description="Show what this machine has.", allow_abbrev=True
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    arguments = parser.parse(argv)
    report = examine()
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    return 0
