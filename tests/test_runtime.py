"""Process settings take effect, yield to the user's own, and `auto` names what the hardware has."""

import os
import platform
import subprocess
import sys
import typing
from pathlib import Path

import pytest
import torch
from lightning.fabric.connector import _PRECISION_INPUT_STR, _PRECISION_INPUT_STR_ALIAS

from lightning_metatok import runtime
from lightning_metatok.errors import UserError

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")

# Counts the page faults of filling a buffer that was freed before, far above the threshold for mapping.
REUSE = """
import ctypes, resource, sys
from lightning_metatok import runtime
print(runtime.tune_allocator() if sys.argv[1] == "tuned" else None)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
size = 256 << 20
def fill():
    buffer = libc.malloc(size)
    ctypes.memset(buffer, 1, size)
    libc.free(buffer)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def run_python(code: str, *arguments: str, **environment: str) -> list[str]:
    """Run `code` in a fresh interpreter, with no inherited malloc settings; return the lines it prints."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("MALLOC_") and name not in ("GLIBC_TUNABLES", "OMP_WAIT_POLICY")
    }
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@needs_glibc
def test_a_tuned_process_reuses_a_freed_buffer_without_page_faults() -> None:
    _, faults_by_default = run_python(REUSE, "default")
    accepted, faults_when_tuned = run_python(REUSE, "tuned")
    assert accepted == "True"
    # 256 MiB are 65,536 pages of 4 KiB, or 128 of 2 MiB; a handful may fault for other reasons.
    assert int(faults_by_default) >= 100
    assert int(faults_when_tuned) < 20


@pytest.mark.parametrize(
    ("name", "value"),
    [("MALLOC_MMAP_THRESHOLD_", "65536"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=131072")],
)
def test_the_users_own_malloc_settings_are_left_alone(name: str, value: str) -> None:
    code = "from lightning_metatok import runtime; print(runtime.tune_allocator())"
    assert run_python(code, **{name: value}) == ["False"]


@pytest.mark.parametrize("chosen", [{}, {"OMP_WAIT_POLICY": "active"}])
def test_idle_threads_sleep_unless_the_user_chose_otherwise(chosen: dict[str, str]) -> None:
    code = """
import os
from lightning_metatok import runtime
runtime.prepare()
print(os.environ["OMP_WAIT_POLICY"])
"""
    assert run_python(code, **chosen) == [chosen.get("OMP_WAIT_POLICY", "passive")]


def test_importing_the_module_loads_nothing_heavy() -> None:
    code = """
import sys, lightning_metatok.runtime
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "lightning", "numpy", "rich"}))
"""
    assert run_python(code) == ["[]"]


@pytest.mark.parametrize(
    ("cpuinfo", "has_bf16"),
    [
        ("processor\t: 0\nflags\t\t: fpu sse2 avx512f avx512_bf16 fsrm\n", True),
        ("flags\t\t: fpu avx2 amx_bf16\n", True),
        ("Features\t: fp asimd sve bf16 i8mm\n", True),
        ("flags\t\t: fpu sse2 avx2 fma\nbugs\t\t: avx512_bf16\n", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_flags_of_the_cpu_and_nothing_else(cpuinfo: str, has_bf16: bool) -> None:
    assert bool(runtime._bf16_flags(cpuinfo)) is has_bf16


@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists() or platform.machine() != "x86_64",
    reason="needs /proc/cpuinfo of an x86-64 CPU",
)
def test_bf16_of_this_cpu_agrees_with_what_torch_detects() -> None:
    capabilities = torch.cpu.get_capabilities()
    assert runtime.cpu_has_bf16() == (capabilities["avx512_bf16"] or capabilities["amx_bf16"])


@pytest.mark.parametrize(("has_bf16", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_takes_bf16_only_where_hardware_computes_it(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(runtime, "cpu_has_bf16", lambda: has_bf16)
    assert runtime.resolve_precision("auto") == precision


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_auto_follows_the_gpu_where_there_is_one() -> None:
    expected = "bf16-mixed" if torch.cuda.get_device_capability()[0] >= 8 else "32-true"
    assert runtime.resolve_precision("auto") == expected


def test_every_precision_of_lightning_passes_unchanged() -> None:
    names = {*typing.get_args(_PRECISION_INPUT_STR), *typing.get_args(_PRECISION_INPUT_STR_ALIAS)}
    assert names == set(runtime.LIGHTNING_PRECISIONS)
    assert {runtime.resolve_precision(name) for name in names} == names


def test_an_unknown_precision_is_one_line_with_the_nearest_name() -> None:
    with pytest.raises(
        UserError, match=r"^trainer\.precision='bf16-mixd': expected .*; did you mean 'bf16-mixed'"
    ) as error:
        runtime.resolve_precision("bf16-mixd")
    assert "\n" not in str(error.value)
