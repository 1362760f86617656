"""A curriculum: phases of training, each with options of its own over those of the task.

    data.curriculum:
      - {task: copying, options: {n_words: [8, 32]}, steps: 500}   another task first, with options of its own
      - {options: {n_lists: [2, 2]}, accuracy: 0.9, steps: 500}    until 0.9 of held-out prompts are right, or 500 steps
      - {options: {n_lists: [2, 3]}, accuracy: 0.9, steps: 500}
      - {options: {n_lists: [2, 5]}}                               the last one has no end; it is the target

Which phase a step belongs to follows from the limits in steps and from the steps at which an accuracy was reached.
Source: arXiv 2509.16278, its synthetic tasks, five phases of growing lists; its ranges are not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.tasks import TASKS


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        task: another task than `data.task`; of `data.task_options` the rendering alone applies to it.
        options: of the task, over `data.task_options`.
        steps: optimiser steps after which it ends at the latest; None: no such limit.
        accuracy: share of held-out prompts whose answer is all right, at which it ends; None: no such limit.
    """

    task: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    accuracy: float | None = None


def read_phases(curriculum: Sequence[Mapping[str, Any]] | None) -> tuple[Phase, ...]:
    """Return the phases that `data.curriculum` describes; one without end when there is none.

    Raises:
        UserError: an unknown key, a value that cannot work, a phase before the last one that would never end.
    """
    if not curriculum:
        return (Phase(),)
    known = [f.name for f in fields(Phase)]
    phases = []
    for i, given in enumerate(curriculum):
        name = f"data.curriculum[{i}]"
        if not isinstance(given, Mapping):
            raise UserError(f"{name}={given}: expected a phase, keys {', '.join(known)}")
        for key in given:
            if key not in known:
                raise UserError(f"{name}: unknown key '{key}', expected {', '.join(known)}{nearest(str(key), known)}")
        options = given.get("options") or {}
        if not isinstance(options, Mapping):
            raise UserError(f"{name}.options={options}: expected options of the task, keys and values")
        phase = Phase(given.get("task"), dict(options), given.get("steps"), given.get("accuracy"))
        steps, accuracy, is_last = phase.steps, phase.accuracy, i == len(curriculum) - 1
        if steps is not None and (type(steps) is not int or steps < 1):
            raise UserError(f"{name}.steps={steps}: expected a positive number of optimiser steps")
        if accuracy is not None and (type(accuracy) not in (int, float) or not 0 < accuracy <= 1):
            raise UserError(f"{name}.accuracy={accuracy}: expected a share above 0, at most 1")
        if phase.task is not None:
            try:
                TASKS.resolve(phase.task)
            except UserError as error:
                raise UserError(str(error).replace(TASKS.key, f"{name}.task", 1)) from error
        if is_last and phase.task is not None:
            raise UserError(f"{name}.task={phase.task}: expected none, the last phase is the target, data.task")
        if is_last and (steps, accuracy) != (None, None):
            raise UserError(f"{name}: steps={steps}, accuracy={accuracy}: expected neither, the last phase has no end")
        if not is_last and (steps, accuracy) == (None, None):
            raise UserError(f"{name}: expected steps or accuracy, else the phase never ends")
        phases.append(phase)
    return tuple(phases)


@dataclass
class Schedule:
    """Which phase each optimiser step belongs to.

    Attributes:
        phases: in order.
        begun: the first step of phase 1, 2, ..., for those that began because an accuracy was reached; else None.
    """

    phases: tuple[Phase, ...]
    begun: list[int | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.begun = self.begun or [None] * (len(self.phases) - 1)

    def begins(self) -> list[int]:
        """First step of each phase so far known, ascending from 0."""
        begins = [0]
        for phase, begun in zip(self.phases, self.begun, strict=False):
            if begun is not None:
                begins.append(begun)
            elif phase.steps is not None:
                begins.append(begins[-1] + phase.steps)
            else:
                break
        return begins

    def phase_at(self, step: int) -> int:
        """Number of the phase that optimiser step `step` (0 is the first) belongs to."""
        return sum(begin <= step for begin in self.begins()) - 1

    def begin_next(self, phase: int, step: int) -> None:
        """Let the phase after `phase` begin at `step`, unless it begins earlier anyway."""
        begins = self.begins()
        if len(begins) <= phase + 1 or step < begins[phase + 1]:
            self.begun[phase] = step
