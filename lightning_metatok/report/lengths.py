"""What runs logged, read as a question: which numbers, at which lengths, and which way is better.

text    ablation/kept_1x, ablation/dropped_1x, ..._4x    nats per source token, by how meta-tokens are read
tasks   answers/full_1x, answers/full_1.5x, ...          share of exact answers
else    the first metric that is collected               one number a run, no lengths

Which readings a run has, and in which of them it was trained, its `arm.json` says:

    "readings": ["kept", "dropped"], "read_as_trained": "kept"        the others are compared with the first
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.report.estimates import SOLVED, is_accuracy, is_exact
from lightning_metatok.report.runs import ARM, Condition, Run
from lightning_metatok.report.study import Study

DEFAULTS = ("accuracy/exact/val", "loss/val", "loss/train")
READINGS, AS_TRAINED = "readings", "read_as_trained"
"""In arm.json."""
EARLIER = ("kept", "dropped")
"""Readings of earlier versions, whose arm.json does not say them; who trained without positions was read the second."""
HIGHER, LOWER = (
    re.compile(r"accuracy|answers|tokens_per_s|tflop"),
    re.compile(r"loss|bits_per_byte|ablation|memory|norm"),
)


@dataclass(frozen=True)
class Question:
    """What is compared.

    Attributes:
        quantity: in words, with its unit.
        names: reading -> how its metric is called, with `{}` for the length where there are lengths.
        multiples: lengths, times the trained one; without any, there is one number a run.
        higher_is_better: None where nobody can know.
        share: a share of right answers, 0 to 1.
        solved: share of exact answers from which on a run has solved its task; 0 where nothing is to be solved.
    """

    quantity: str
    names: dict[str, str]
    multiples: tuple[float, ...]
    higher_is_better: bool | None
    share: bool
    solved: float = 0.0

    @property
    def places(self) -> tuple[float | None, ...]:
        """The lengths, or one place that has none."""
        return self.multiples or (None,)

    @property
    def others(self) -> tuple[str, ...]:
        """The readings that are compared with the first one."""
        return tuple(self.names)[1:]

    @property
    def read(self) -> str:
        """The readings in words, ``kept, dropped or shuffled``; empty where there is one."""
        return f"{', '.join([*self.names][:-1])} or {self.others[-1]}" if self.others else ""

    @property
    def curve(self) -> str:
        """What is logged while a run learns, for its learning curve."""
        if not self.multiples:
            return next(iter(self.names.values()))
        return "accuracy/exact/val" if self.share else "loss/val"

    def metric(self, reading: str, at: float | None) -> str:
        """The name in metrics.jsonl."""
        return self.names[reading].format("" if at is None else f"{at:g}")

    def as_trained(self, condition: Condition) -> str:
        """How a condition's models are read as they were trained: without positions that they never saw.

        A model without meta-tokens is read one way only, whatever its configuration says of positions there.
        """
        run = condition.runs[0]
        read = [name for name in self.names if any(self.metric(name, at) in run.metrics for at in self.places)]
        told = run.arm.get(AS_TRAINED)
        if told is None and run.config.get("model.drop_positions") not in (None, "none"):
            told = EARLIER[1]
        return str(told) if told in read else next(iter(self.names))

    def value(self, run: Run, reading: str, at: float | None) -> float:
        """The last value that a run logged; NaN where it logged none."""
        return run.last(self.metric(reading, at))

    def best(self, values: dict[Condition, float]) -> Condition | None:
        """The condition with the best of `values`; None where there is none, or no better and worse."""
        known = {condition: value for condition, value in values.items() if math.isfinite(value)}
        if not known or self.higher_is_better is None:
            return None
        return (max if self.higher_is_better else min)(known, key=lambda condition: known[condition])

    def is_better(self, difference: float) -> bool:
        """Whether a difference is an improvement."""
        return self.higher_is_better is not None and difference != 0 and (difference > 0) == self.higher_is_better

    def shown(self, value: float) -> str:
        """A value as text; all values of a table with as many digits."""
        if not math.isfinite(value):
            return "–"
        return f"{value:.3f}" if self.share or 0.01 <= abs(value) < 1000 or self.multiples else f"{value:.4g}"

    def signed(self, value: float) -> str:
        """A difference as text."""
        return f"{'+' if value > 0 else ''}{self.shown(value)}".replace("-", "−")


def question(study: Study, solved: float = SOLVED) -> Question:
    """Return what the runs of a study can be asked.

    Args:
        solved: share of exact answers from which on a run has solved its task.

    Raises:
        UserError: no metric that all runs logged.
    """
    logged = set().union(*(run.metrics for run in study.runs))
    for quantity, share, names in (
        ("loss (nats per source token)", False, {name: f"ablation/{name}_{{}}x" for name in readings_of(study.runs)}),
        ("exact answers (share)", True, {"": "answers/full_{}x"}),
    ):
        found = {reading: multiples(logged, name) for reading, name in names.items()}
        if any(found.values()):
            lengths = tuple(sorted(set().union(*found.values())))
            present = {reading: name for reading, name in names.items() if found[reading]}
            return Question(quantity, present, lengths, share, share, solved if share else 0.0)
    for metric in (*study.metrics, *DEFAULTS):
        if metric in logged:
            higher = True if HIGHER.search(metric) else False if LOWER.search(metric) else None
            solves = solved if is_exact(metric) else 0.0
            return Question(metric, {"": metric}, (), higher, is_accuracy(metric), solves)
    wanted = study.metrics or DEFAULTS
    raise UserError(f"{study.title}: no run logged {' or '.join(wanted)}{nearest(wanted[0], logged)}")


def readings_of(runs: Sequence[Run]) -> list[str]:
    """Return the readings that runs say they have, in their order.

    Raises:
        UserError: what an arm.json says is no list of names.
    """
    found: dict[str, None] = {}
    for run in runs:
        told = run.arm.get(READINGS, EARLIER)
        if not isinstance(told, list | tuple) or not all(isinstance(name, str) for name in told):
            raise UserError(f"{run.folder / ARM}: {READINGS}={told}: expected a list of names, as `fit` writes it")
        found |= dict.fromkeys(told)
    return list(found)


def multiples(logged: set[str], name: str) -> set[float]:
    """Return the lengths at which `name` was logged."""
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+(?:\.\d+)?)"))
    return {float(match[1]) for metric in logged if (match := pattern.fullmatch(metric))}
