"""`make mutate ROOM=analysis [N=20] [SEED=0] [TESTS="..."]`: how many one-line faults do the tests of a room see?

    lightning_metatok/ROOM/**.py  --cosmic-ray-->  all mutants  --SEED-->  N of them
    each, in a copy of the repository:  tests/ROOM pass -> survived;  fail, or take too long -> killed

A place in the source is drawn first, then one of the mutants there: an operator that has eleven others is no likelier
than a comparison that has five. mutation/ROOM.jsonl keeps what became of each; a second call goes on from there, and
asks again about a file that has changed. Mutants of annotations are left out: nothing but Python itself reads them.
"""

import argparse
import ast
import contextlib
import hashlib
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = "lightning_metatok"
MARKERS = "not slurm and not browser and not torture"
SURVIVED, KILLED = "survived", "killed"
Place = tuple[int, int]


def main() -> int:
    """Ask about the sample, and print what survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", help="a folder or a file of the package, such as analysis or probes")
    parser.add_argument("--n", type=int, default=20, help="mutants that are drawn (20)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--tests", default="", help="what to run, instead of the folder of tests that mirrors the room")
    arguments = parser.parse_args()
    room = arguments.room.strip("/").removesuffix(".py")
    results = REPOSITORY / "mutation" / f"{room.replace('/', '-')}.jsonl"
    with copied() as copy:
        os.chdir(copy)
        tests = arguments.tests.split() or [f"tests/{room}"]
        sources = sorted(Path(PACKAGE, room).rglob("*.py")) or [Path(PACKAGE, f"{room}.py")]
        if missing := [name for name in (*map(str, sources), *tests) if not Path(name.partition("::")[0]).exists()]:
            parser.error(f"{missing[0]}: no such file or folder")
        asked = ask(drawn(sources, arguments.n, arguments.seed), tests, results)
    return report(asked)


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """Give a copy of the working tree, without what git ignores; Python finds the package there."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as name:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        for file in filter(None, listed.stdout.split("\0")):
            if (REPOSITORY / file).is_file():
                (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPOSITORY / file, Path(name) / file)
        # The same random cases for every mutant.
        os.environ.update(PYTHONPATH=name, CI="1", OMP_NUM_THREADS="1")
        try:
            yield Path(name)
        finally:
            os.chdir(REPOSITORY)


def command(tests: list[str]) -> str:
    """What runs tests until one fails."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", MARKERS]
    return shlex.join([sys.executable, "-m", "pytest", *options, *tests])


def drawn(sources: list[Path], n: int, seed: int) -> list[MutationSpec]:
    """Return `n` mutants, or all there are; those of a smaller `n` come first."""
    with tempfile.TemporaryDirectory() as folder, use_db(f"{folder}/all.sqlite") as db:
        init(sources, db, {})
        found = [item.mutations[0] for item in db.work_items]
    places: dict[tuple[str, Place, Place], list[MutationSpec]] = {}
    hidden = {str(source): annotations(source.read_text(encoding="utf-8")) for source in sources}
    for one in found:
        path = str(one.module_path)
        if not any(first <= one.start_pos and one.end_pos <= last for first, last in hidden[path]):
            places.setdefault((path, one.start_pos, one.end_pos), []).append(one)
    draw = random.Random(seed)
    order = sorted(places)
    draw.shuffle(order)
    return [
        draw.choice(sorted(places[place], key=lambda one: (one.operator_name, one.occurrence))) for place in order[:n]
    ]


def annotations(source: str) -> list[tuple[Place, Place]]:
    """Return where annotations begin and end."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            if part is not None:
                found.append(((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)))
    return found


def time_limit(tests: list[str]) -> float:
    """Return how many seconds a mutant has: three times what the tests take without a fault, and 30.

    Raises:
        SystemExit: they fail without a fault.
    """
    print(f"{' '.join(tests)} without a fault: ", end="", flush=True)
    start = time.monotonic()
    outcome, said = run_tests(command(tests), None)
    if outcome != TestOutcome.SURVIVED:
        raise SystemExit(f"failed\n{said}")
    limit = 30 + 3 * (time.monotonic() - start)
    print(f"passed; a mutant has {limit:.0f} s", flush=True)
    return limit


def ask(mutants: list[MutationSpec], tests: list[str], results: Path) -> list[dict[str, Any]]:
    """Return what became of each mutant, written down as soon as it is known."""
    results.parent.mkdir(exist_ok=True)
    lines = results.read_text(encoding="utf-8").splitlines() if results.is_file() else []
    known = {one["id"]: one for one in map(json.loads, lines)}
    limit, asked = None, []
    for number, mutant in enumerate(mutants, 1):
        path = Path(mutant.module_path)
        named = f"{path} {mutant.operator_name} {mutant.occurrence}".encode()
        identity = hashlib.sha256(named + path.read_bytes() + " ".join(tests).encode()).hexdigest()[:16]
        if identity not in known:
            limit = limit or time_limit(tests)
            start = time.monotonic()
            mirror = Path("tests", path.relative_to(PACKAGE).parent, f"test_{path.name}")
            first = (
                [str(mirror)] if mirror.is_file() and tests == [f"tests/{mirror.parent.relative_to('tests')}"] else []
            )
            result = mutate_and_test([mutant], command([*first, *tests]), limit)
            if result.test_outcome not in (TestOutcome.SURVIVED, TestOutcome.KILLED):
                raise SystemExit(f"{path}:{mutant.start_pos[0]}: {result.worker_outcome}: {result.output}")
            outcome = SURVIVED if result.test_outcome == TestOutcome.SURVIVED else KILLED
            known[identity] = {
                "id": identity,
                "outcome": outcome,
                "place": f"{path}:{mutant.start_pos[0]}",
                "operator": mutant.operator_name,
                "seconds": round(time.monotonic() - start, 1),
                "timed_out": result.output == "timeout",
                "diff": "\n".join(line for line in (result.diff or "").splitlines() if changed(line)),
            }
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[identity]) + "\n")
        asked.append(known[identity])
        print(f"{number}/{len(mutants)}  {asked[-1]['outcome']:<8}  {asked[-1]['place']}", flush=True)
    return asked


def changed(line: str) -> bool:
    """Whether a line of a diff is more than its surroundings."""
    return line.startswith(("+", "-")) and not line.startswith(("+++", "---"))


def report(asked: list[dict[str, Any]]) -> int:
    """Print the survivors, and how many there are."""
    survivors = [one for one in asked if one["outcome"] == SURVIVED]
    for one in survivors:
        print(f"\n{one['place']}  survived ({one['operator']})\n{one['diff']}")
    killed, slow = len(asked) - len(survivors), sum(one["timed_out"] for one in asked)
    share = killed / len(asked) if asked else 1.0
    print(f"\n{killed} of {len(asked)} mutants killed ({share:.0%}), {slow} of them by taking too long")
    return 0


if __name__ == "__main__":
    sys.exit(main())
