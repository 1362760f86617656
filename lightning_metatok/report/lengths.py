"""What runs logged, read as a question: which numbers, at which lengths, and which way is better.

text    ablation/kept_1x, ablation/dropped_1x, ..._4x    nats per source token, positions at meta-tokens kept or not
tasks   answers/full_1x, answers/full_1.5x, ...          share of exact answers
else    the first metric that is collected               one number a run, no lengths
"""

import math
import re
from dataclasses import dataclass

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.report.estimates import SOLVED, is_accuracy, is_exact
from lightning_metatok.report.runs import Condition, Run
from lightning_metatok.report.study import Study

DEFAULTS = ("accuracy/exact/val", "loss/val", "loss/train")
KEPT, DROPPED = "kept", "dropped"
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
        trained_without = run.config.get("model.drop_positions") not in (None, "none")
        return DROPPED if trained_without and DROPPED in read else next(iter(self.names))

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
        ("loss (nats per source token)", False, {KEPT: "ablation/kept_{}x", DROPPED: "ablation/dropped_{}x"}),
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


def multiples(logged: set[str], name: str) -> set[float]:
    """Return the lengths at which `name` was logged."""
    pattern = re.compile(re.escape(name).replace(r"\{\}", r"(\d+(?:\.\d+)?)"))
    return {float(match[1]) for metric in logged if (match := pattern.fullmatch(metric))}
