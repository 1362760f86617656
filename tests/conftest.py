"""What every test relies on: one thread, no network, no file outside temporary folders, one cache a run."""

import gc
import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a shell's background; tests ask commands to heed it
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch loads: it reads the number of threads only once, and subprocesses inherit both lines.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import shutil
import tempfile
import time
from pathlib import Path

import hypothesis
import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]

gc.disable()  # until all tests are collected: what is loaded and collected stays
torch.set_num_threads(1)
hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.register_profile(
    "fuzz", deadline=None, max_examples=int(os.environ.get("FUZZ_EXAMPLES", "20000")), print_blob=True
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_configure(config: pytest.Config) -> None:
    """Give the whole run one cache folder; pytest-xdist workers inherit it from their controller."""
    if hasattr(config, "workerinput"):
        return
    folder = tempfile.mkdtemp(prefix="lightning-metatok-tests-")
    os.environ["LIGHTNING_METATOK_CACHE"] = folder
    config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)  # before -m looks at marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to the slow tests all but one in n cases of a test that is marked so."""
    seen: dict[str, int] = {}
    for item in items:
        if (mark := item.get_closest_marker("one_in")) is not None:
            name = item.nodeid.partition("[")[0]
            seen[name] = seen.get(name, -1) + 1
            if seen[name] % mark.args[0]:
                item.add_marker(pytest.mark.slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on there is garbage."""
    gc.enable()


def leave_libraries_alone() -> None:
    """Leave what is loaded out of the garbage collector's view: each training would walk half a million objects.

    A training that ends puts all in view again; every 20th time what was left behind is looked for.
    """
    global _thaws
    if not gc.get_freeze_count():
        if _thaws % 20 == 0:
            gc.collect()
        _thaws += 1
        gc.freeze()


_thaws = 0


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leave out, and say so, what would begin after TESTS_UNTIL (seconds since 1970)."""
    if time.time() > float(os.environ.get("TESTS_UNTIL", "inf")):
        pytest.skip("no time left")
    leave_libraries_alone()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora that stands beside some checkouts."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder shared/data beside the checkout")
    return folder
