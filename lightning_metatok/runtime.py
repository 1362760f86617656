"""How this machine computes: settings that must precede torch, and the precision that its hardware has.

The command line calls `prepare()` first of all. glibc gives each large buffer its own mapping and hands it
back to the kernel as soon as it is freed, so that a training step on the CPU pays for the same pages again
and again; `tune_allocator` keeps them. `benchmarks/out_of_the_box.py` measures what that is worth.

Nothing heavy is imported with this module; torch is loaded by the functions that ask it something.
"""

import ctypes
import gc
import importlib
import logging
import os
import platform
import sys
from pathlib import Path
from types import ModuleType

from lightning_metatok.errors import UserError, nearest

LIGHTNING_PRECISIONS = (
    *("32-true", "bf16-mixed", "bf16-true", "16-mixed", "16-true", "64-true"),
    *("transformer-engine", "transformer-engine-float16"),
    *("32", "bf16", "16", "64"),
)

# malloc.h of glibc: parameters of mallopt(3).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
NEVER_TRIM = -1
LARGEST_HEAP_BUFFER = 1 << 30
"""Bytes: smaller buffers come from the heap, where they stay for reuse. mallopt takes a C int: 1 GiB fits."""


def prepare() -> None:
    """Set up this process for training; call it before torch is imported.

    Idle OpenMP threads sleep instead of spinning (`OMP_WAIT_POLICY=passive`, unless the user chose): beside a
    busy neighbour a spinning team can make a small step ten times slower.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if not any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        # torch asks for the user's name; in a container there may be nothing to ask.
        os.environ["USER"] = f"user-{os.getuid()}" if hasattr(os, "getuid") else "user"
    # It would say that a home folder cannot be written, which it can do without.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    tune_allocator()


def load(name: str) -> ModuleType:
    """Import a module with all that it needs, and leave that out of the garbage collector's view: it stays loaded.

    The collector would walk half a million objects again and again: a sixth of the time that torch and Lightning take
    to load, and most of each collection that follows.
    """
    if name in sys.modules or not gc.isenabled():
        return importlib.import_module(name)
    gc.disable()
    try:
        module = importlib.import_module(name)
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    return module


def tune_allocator() -> bool:
    """Make glibc's malloc keep large freed buffers for reuse, and return whether that took effect.

    Does nothing on another C library, and nothing when the user tuned malloc through the environment
    (`MALLOC_...`, `GLIBC_TUNABLES`). Memory then stays at its peak until the process ends.
    """
    if platform.libc_ver()[0] != "glibc" or user_tunes_allocator():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    mallopt.restype = ctypes.c_int  # 1 on success
    kept = mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BUFFER) == 1
    return kept and mallopt(M_TRIM_THRESHOLD, NEVER_TRIM) == 1


def user_tunes_allocator() -> bool:
    """Return whether the environment already holds settings of glibc's malloc."""
    return "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(
        name.startswith("MALLOC_") for name in os.environ
    )


def cpu_has_bf16() -> bool:
    """Return whether this CPU multiplies bfloat16 matrices in hardware (AVX512-BF16, AMX-BF16 or Arm BF16).

    Without them bf16 is emulated and slower than float32. The answer is read from /proc/cpuinfo; a system
    that has no such file counts as having none.
    """
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and bool(_bf16_flags(cpuinfo.read_text()))


def _bf16_flags(cpuinfo: str) -> set[str]:
    """Return those CPU flags in the text of /proc/cpuinfo that stand for bfloat16 matrix products."""
    flags: set[str] = set()
    for line in cpuinfo.splitlines():
        key, _, values = line.partition(":")
        if key.strip() in ("flags", "Features"):  # x86, Arm
            flags.update(values.split())
    return flags & {"avx512_bf16", "amx_bf16", "bf16"}


def resolve_precision(precision: str) -> str:
    """Return the Lightning precision that `precision` stands for; `auto` is bf16 where hardware computes it.

    `auto` is `bf16-mixed` on a CUDA device with bfloat16 arithmetic and on a CPU with bfloat16 matrix
    products, `32-true` elsewhere. Every name of Lightning's own is returned as it is.

    Raises:
        UserError: another name.
    """
    if precision != "auto":
        if precision not in LIGHTNING_PRECISIONS:
            names = ("auto", *LIGHTNING_PRECISIONS)
            expected = f"one of {', '.join(names)}{nearest(precision, names)}"
            raise UserError(f"trainer.precision={precision!r}: expected {expected}")
        return precision
    import torch

    cuda = torch.cuda
    has_bf16 = cuda.is_bf16_supported(including_emulation=False) if cuda.is_available() else cpu_has_bf16()
    return "bf16-mixed" if has_bf16 else "32-true"


def usable_cores() -> list[int]:
    """Return the cores that this process may run on, which a container or SLURM may have cut down."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
