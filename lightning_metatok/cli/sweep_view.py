"""What a sweep looks like while it runs: a live table in a terminal, a line an event elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lightning_metatok.sweep import PlannedRun, SweepFolder
from lightning_metatok.sweep.record import DONE, FAULTY, State


class RunTable:
    """Shows which runs are at work, how far they are, what failed, and when all will be done."""

    def __init__(self, folder: SweepFolder, runs: Sequence[PlannedRun], minutes: float, workers: int) -> None:
        self.folder, self.minutes, self.workers = folder, minutes, workers
        self.names = [run.name for run in runs]
        self.steps = {run.name: run.options.get("trainer.max_steps") for run in runs}
        self.ended: dict[str, State] = {}
        self._before: set[str] = set()
        self._live = Live(console=Console(stderr=True), auto_refresh=False) if sys.stderr.isatty() else None
        self._shown = 0.0

    def __enter__(self) -> "RunTable":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def watch(self, running: dict[str, float], left: int) -> None:
        """Show how it goes; called several times a second."""
        now = set(running)
        for name in sorted(self._before - now):
            self.ended[name] = self.folder.state(name)
            if not self._live:
                state = self.ended[name]
                print(
                    f"{state.state:<8} {name}  {duration(state.spent_s)}  {state.why}".rstrip()
                    + f"  [{len(self.ended)} ended, {left} waiting, {self._left(running, left)}]",
                    file=sys.stderr,
                    flush=True,
                )
        if not self._live:
            for name in sorted(now - self._before):
                print(f"start    {name}", file=sys.stderr, flush=True)
        self._before = now
        if self._live and (time.monotonic() - self._shown > 1 or not running):
            self._shown = time.monotonic()
            self._live.update(self._table(running, left), refresh=True)

    def _left(self, running: Mapping[str, float], left: int) -> str:
        took = [state.spent_s for state in self.ended.values() if state.state == DONE]
        each = sum(took) / len(took) if took else 60 * self.minutes
        now = time.time()
        rest = left * each + sum(max(0.0, each - (now - begun)) for begun in running.values())
        return f"about {duration(rest / self.workers)} left" if rest else "all ended"

    def _table(self, running: Mapping[str, float], left: int) -> Table:
        failed = {name: state for name, state in self.ended.items() if state.state in FAULTY}
        done = len(self.ended) - len(failed)
        title = (
            f"{done} ended, {len(failed)} failed, {len(running)} running, {left} waiting; {self._left(running, left)}"
        )
        table = Table("run", "step", "time", "last word", title=title, title_justify="left")
        for name, begun in running.items():
            total = self.steps[name]
            step = f"{self.folder.step(name)}{f'/{total}' if total else ''}"
            table.add_row(name, step, duration(time.time() - begun), self.folder.last_line(name)[:80])
        for name, state in list(failed.items())[-5:]:
            table.add_row(name, str(self.folder.step(name)), duration(state.spent_s), state.why[:80], style="red")
        return table


def summary(states: Mapping[str, State]) -> str:
    """Counts of all states, and how often runs were started again."""
    counts = Counter(state.state for state in states.values())
    again = sum(max(0, state.attempt - 1) for state in states.values())
    text = ", ".join(f"{n} {name}" for name, n in counts.most_common())
    return f"{len(states)} runs: {text}" + (f"; started again {again} times" if again else "")


def duration(seconds: float) -> str:
    """12 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
