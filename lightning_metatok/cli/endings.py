"""How a command ends when something is raised: one line and an exit code, or the traceback of a bug.

Errors have one place here, because what a machine refuses (files, memory, processes) can come out of any library. What
stands in no row is a bug, and keeps its traceback.
"""

import atexit
import errno
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple, NoReturn

from lightning_metatok import signals
from lightning_metatok.errors import RunError, UserError

BROKEN_PIPE = 141
"""128 + SIGPIPE: nobody reads the output any more."""

LIMITS = {
    errno.EFBIG: "file too large; `ulimit -f` or the file system allows no larger one",
    errno.EMFILE: "too many open files; `ulimit -n` allows no more",
    errno.ENFILE: "too many open files on this machine",
    errno.EAGAIN: "no further process or thread; `ulimit -u` or the container allows no more",
    errno.ENOMEM: "no memory left; the machine, the container or `ulimit -v` gives no more",
}
"""What the system refuses to anyone, whatever it was asked for."""
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE, errno.ENXIO)
"""A disk that is full or broken, a place that may not be read or written: what is said about it stands in the error."""
MISPLACED = (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT)
"""A folder where a file belongs, or a file that somebody took away: said where the error names it."""
RESOURCES = (
    (r"can't start new thread", LIMITS[errno.EAGAIN]),
    (r"can't allocate memory|Cannot allocate memory|failed to map segment|std::bad_alloc", LIMITS[errno.ENOMEM]),
    (r"Unable to allocate", LIMITS[errno.ENOMEM]),
    (r"out of memory", "the device has no memory left; a smaller data.batch_size or model needs less"),
    (r"Too many open files|received 0 items of ancdata", LIMITS[errno.EMFILE]),
    (r"No space left on device", "No space left on device"),
    (r"File too large", LIMITS[errno.EFBIG]),
)
"""Words of libraries that hide the system's error in an exception of their own, and what they mean."""


class Ending(NamedTuple):
    """What is said on stderr, and the exit code."""

    line: str
    code: int


def ending(error: BaseException) -> Ending | None:
    """Return how a command ends that raised `error`; None for a bug."""
    if isinstance(error, signals.Stopped):
        how = f": {error.command}" if error.command else ""
        return Ending(f"stopped by {error}; --ckpt_path=auto goes on from there{how}", error.code)
    if isinstance(error, signals.Ended):
        return Ending(f"ended by {error}", 128 + error.number)
    if isinstance(error, KeyboardInterrupt) or (
        isinstance(error, SystemExit) and any(isinstance(one, KeyboardInterrupt) for one in chain(error))
    ):  # Lightning makes exit code 1 of it
        return Ending("interrupted", 130)
    if isinstance(error, UserError):
        return Ending(f"error: {error}", 2)
    if isinstance(error, RunError):
        return Ending(f"error: {error}", error.code)
    for one in chain(error):
        if isinstance(one, BrokenPipeError) and isinstance(error, BrokenPipeError | SystemExit):
            return Ending("nobody reads the output any more (broken pipe)", BROKEN_PIPE)
    if isinstance(error, Exception) and (what := what_the_machine_refuses(error)) is not None:
        return Ending(f"error: {what}", 2)
    return None


def what_the_machine_refuses(error: Exception) -> str | None:
    """Return what the system, not this program, has against going on; None where that is not the cause."""
    for one in chain(error):
        if isinstance(one, OSError):
            where = one.filename if isinstance(one.filename, str | bytes) and one.filename else None
            place = f"{os.fsdecode(where)}: " if where is not None else ""
            if one.errno in LIMITS:
                return place + LIMITS[one.errno]
            if one.errno in UNWRITABLE:
                return f"{place or 'output: '}{one.strerror}"
            if one.errno in MISPLACED and place and not _is_ours(one):
                return place + str(one.strerror)
        if isinstance(one, MemoryError):
            return LIMITS[errno.ENOMEM]
        if isinstance(one, RuntimeError | KeyError) and re.search(r"home directory|uid not found", str(one)):
            return f"user {os.getuid()} has no home folder; set HOME, or LIGHTNING_METATOK_CACHE for prepared data"
        if isinstance(one, UnicodeEncodeError) and one.reason == "surrogates not allowed":
            return f"{one.object[:200]!r}: expected text in UTF-8"
        if isinstance(one, RuntimeError | ImportError | OSError):
            for words, meaning in RESOURCES:
                if re.search(words, str(one)):
                    return meaning
    return None


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """`error` and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        # A bug in the handling of an error is a bug; libraries wrap what the system said in these.
        hides = isinstance(error, RuntimeError | OSError | ImportError | SystemExit) and not error.__suppress_context__
        error = error.__cause__ or (error.__context__ if hides else None)


def say(line: str) -> None:
    """Write one line to stderr, also where nobody reads it; what an exception says in several lines becomes one."""
    with suppress(ValueError):
        try:
            sys.stdout.flush()  # what was said before stands before it, also in a log of both streams
        except OSError:
            silence(sys.stdout.fileno())
    try:
        print(f"lightning-metatok: {' '.join(line.split())}", file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr.fileno())


NO_MEMORY = f"lightning-metatok: error: {LIMITS[errno.ENOMEM]}\n".encode()


def give_up() -> NoReturn:
    """End at once with exit code 2 and a line that was made beforehand, where there is no memory to make one."""
    os.write(2, NO_MEMORY)
    os._exit(2)


def end_quietly() -> None:
    """Let torch's compiler report nothing at the interpreter's end, where there may be no memory left for a report."""
    if (compiler := sys.modules.get("torch._dynamo.utils")) is not None:
        atexit.unregister(compiler.dump_compile_times)


def silence(*descriptors: int) -> None:
    """Let what is still written to these go nowhere, so that the interpreter's end does not stumble over it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _is_ours(error: OSError) -> bool:
    """Whether a file is missing that belongs to an installed package, which is no mistake of the user."""
    name = os.fsdecode(error.filename)
    return "site-packages" in name or os.path.dirname(os.path.dirname(os.path.abspath(__file__))) in name
