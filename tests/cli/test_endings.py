"""What the machine refuses ends in one line and an exit code; a bug keeps its traceback."""

import errno
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_metatok import signals
from lightning_metatok.cli.endings import BROKEN_PIPE, ending
from lightning_metatok.errors import NonFiniteError, UserError, WorkerError
from tests.system.helpers import without_progress


def wrapped(outer: BaseException, inner: BaseException, *, cause: bool = True) -> BaseException:
    """`outer`, raised while `inner` was handled, as a library does it."""
    try:
        try:
            raise inner
        except BaseException as error:
            if cause:
                raise outer from error
            raise outer  # noqa: B904
    except BaseException as error:
        return error


def refused(number: int, name: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), *([] if name is None else [name]))


ENDINGS = [
    (UserError("a=1: expected 2"), 2, "error: a=1: expected 2"),
    (NonFiniteError("step 3"), 3, "error: step 3"),
    (WorkerError("data worker 3"), 4, "error: data worker 3"),
    (signals.Stopped(signal.SIGHUP, 7), 128 + signal.SIGHUP, "stopped by SIGHUP at step 7"),
    (signals.Stopped(signal.SIGTERM, 7, "x is made anew"), 143, "stopped by SIGTERM at step 7 (x is made anew)"),
    (signals.Ended(signal.SIGTERM), 143, "ended by SIGTERM"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (wrapped(SystemExit(1), KeyboardInterrupt(), cause=False), 130, "interrupted"),
    (BrokenPipeError(errno.EPIPE, "Broken pipe"), BROKEN_PIPE, "nobody reads the output any more"),
    (wrapped(SystemExit(1), BrokenPipeError(errno.EPIPE, "Broken pipe")), BROKEN_PIPE, "nobody reads"),
    *(
        (refused(number, "runs/x"), 2, f"error: runs/x: {os.strerror(number)}")
        for number in (
            *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
            *(errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT),
        )
    ),
    (refused(errno.ENOSPC), 2, "error: output: No space left on device"),
    (refused(errno.EFBIG), 2, "ulimit -f"),
    (refused(errno.EMFILE, "x"), 2, "error: x: too many open files; `ulimit -n`"),
    (refused(errno.EAGAIN), 2, "ulimit -u"),
    (refused(errno.ENOMEM), 2, "ulimit -v"),
    (MemoryError(), 2, "no memory left"),
    (RuntimeError("can't start new thread"), 2, "ulimit -u"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."), 2, "no memory left"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), 2, "the device has no memory left"),
    (ImportError("libx.so: failed to map segment from shared object"), 2, "no memory left"),
    (RuntimeError("received 0 items of ancdata"), 2, "too many open files"),
    (wrapped(RuntimeError("PytorchStreamWriter failed"), refused(errno.ENOSPC, "a.ckpt")), 2, "a.ckpt: No space left"),
    (RuntimeError("Could not determine home directory."), 2, "no home folder; set HOME"),
    (KeyError("getpwuid(): uid not found: 12345"), 2, "no home folder; set HOME"),
    (UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed"), 2, "'a\\udcff': expected text in UTF-8"),
]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("error", "code", "line"), ENDINGS, ids=lambda value: repr(value)[:50])
def test_what_is_no_bug_is_one_line(error: BaseException, code: int, line: str) -> None:
    end = ending(error)
    assert end is not None
    assert (end.code, line in end.line) == (code, True), end


BUGS = [
    ValueError("x"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    KeyError("loss"),
    SystemExit(0),
    wrapped(NameError("x"), refused(errno.ENOSPC, "a"), cause=False),  # a bug in the handling of an error
    refused(errno.ENOENT, pickle.__file__.replace("pickle", "site-packages/gone")),  # a broken installation
    refused(errno.EINVAL, "x"),
    UnicodeEncodeError("ascii", "ü", 0, 1, "ordinal not in range(128)"),
]


@pytest.mark.parametrize("error", BUGS, ids=lambda value: repr(value)[:50])
def test_a_bug_keeps_its_traceback(error: BaseException) -> None:
    assert ending(error) is None


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """What bash says to `command`, in which $tool stands for the command line's program."""
    program = f"{sys.executable} -m lightning_metatok"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(["bash", "-c", f"tool='{program}'; {command}"], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[2], env=environment)  # fmt: skip
    done.stderr = without_progress(done.stderr)
    return done


@pytest.mark.parametrize(
    ("command", "code", "line"),
    [
        ("$tool --help | true; exit ${PIPESTATUS[0]}", BROKEN_PIPE, "nobody reads the output any more (broken pipe)"),
        ("$tool --help >/dev/full", 2, "error: output: No space left on device"),
        ("$tool --help >&-", 0, None),
        ("$tool --help >&- 2>&-", 0, None),
        ("$tool --x=$'\\xff'", 2, "error: --x='\\udcff': expected text in UTF-8"),
        ("$tool compare $'runs/\\xff'", 2, "error: 'runs/\\udcff': expected text in UTF-8"),
        ("PYTHONIOENCODING=ascii $tool compare münchen", 2, "error: m\\xfcnchen: no such folder"),
        ("LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 $tool compare münchen", 2, "expected text in UTF-8"),
    ],
)
def test_streams_and_arguments_of_a_shell(command: str, code: int, line: str | None) -> None:
    done = shell(command)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, int(line is not None)), done
    assert line is None or line in done.stderr


def test_where_there_is_no_memory_for_the_line_one_is_ready() -> None:
    program = """
from lightning_metatok import cli
def none_left(*_): raise MemoryError
cli._run = cli.say = none_left
cli.main(["fit"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert "no memory left" in done.stderr


@pytest.fixture
def fit(repository: Path, tmp_path: Path) -> str:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("".join(f"The {i}th stone lies — in the river.\n" for i in range(4000)))
    options = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--ablation.multiples=[1]"]
    return " ".join(["$tool fit --config conf/debug.yaml", f"--data.corpus={corpus}", f"--run_dir={tmp_path}/run",
                     *options])  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "behind", "code", "line"),
    [
        ("", "| head -1; exit ${PIPESTATUS[0]}", BROKEN_PIPE, "nobody reads the output any more"),
        ("ulimit -f 20;", "", 2, "ulimit -f"),
        ("ulimit -n 30;", "--data.num_workers=2", 4, "too many open files; `ulimit -n`"),
        # Enough to begin: what a library does that finds no memory while it is imported is its own affair.
        ("ulimit -v 2500000;", "--model.d_model=4096", 2, "ulimit -v"),
        ("PYTHONIOENCODING=ascii", "", 0, None),
    ],
)
def test_a_fit_under_limits(before: str, behind: str, code: int, line: str | None, fit: str) -> None:
    done = shell(f"{before} {fit} {behind}")
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr
    assert line is None or line in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) <= 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting and other users need root on Linux")
@pytest.mark.parametrize(
    ("around", "options", "code", "line"),
    [
        ("mount -t tmpfs -o size=16k tmpfs /dev/shm", "--data.num_workers=2", 4, "/dev/shm has 16 kB free"),
        # It fills up when the workers have begun.
        (
            # Again and again: what the batches on their way free is taken, too.
            "mount -t tmpfs -o size=1m tmpfs /dev/shm; trap 'kill $!' EXIT; (until [ -s $run/metrics.jsonl ]; do "
            "sleep 0.05; done; while sleep 0.002; do cat /dev/zero >>/dev/shm/full; done) 2>/dev/null &",
            "--data.num_workers=2 --trainer.max_steps=20000 --trainer.val_check_interval=20000 "
            "--trainer.log_every_n_steps=1",
            4,
            "/dev/shm",
        ),
    ],
)
def test_shared_memory_that_is_full_is_said(
    around: str, options: str, code: int, line: str, fit: str, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(f"run={tmp_path}/run; tool='{sys.executable} -m lightning_metatok'\n{around}\n{fit} {options}\n")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no mounts of its own here")
    done = subprocess.run(["unshare", "-m", "bash", str(script)], capture_output=True, text=True, timeout=120,
                          check=False, cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == code, done
    assert line in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="another user needs root on Linux")
@pytest.mark.parametrize(
    ("cache", "code", "line"), [("$place/cache", 0, None), ("", 2, "user 12345 has no home folder; set HOME")]
)
def test_a_user_whom_the_machine_does_not_know(
    cache: str, code: int, line: str | None, fit: str, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(f"place={tmp_path}; tool='{sys.executable} -m lightning_metatok'; unset HOME USER LOGNAME LNAME\n"
                      f"export LIGHTNING_METATOK_CACHE={cache}\n{fit}\n")  # fmt: skip
    # In a namespace of its own, where uid 12345 may read what root may.
    command = ["unshare", "--user", "--map-user=12345"]
    if subprocess.run([*command, "true"], capture_output=True).returncode:
        pytest.skip("no users of its own here")
    done = subprocess.run([*command, "bash", str(script)], capture_output=True, text=True, check=False,
                          cwd=Path(__file__).parents[2])  # fmt: skip
    assert done.returncode == code, done
    assert (done.stderr == "") if line is None else (line in done.stderr and done.stderr.count("\n") == 1)
