"""Run folders, and which of them are seeds of one condition.

    runs/plain-1   runs/plain-2   runs/meta-1   runs/meta-2   runs/meta-wide
    \\________________________/   \\_______________________/   \\____________/
            plain                          meta                meta, d_ff=640

A condition is an arm (as its `arm.json` describes it) and whatever else of `config.yaml` matters for what is learned.
Its runs differ in nothing but the seed.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.meta_tokens import without_kinds
from lightning_metatok.old_keys import renamed_in, translated
from lightning_metatok.yaml_files import followed, read_text

ARM, CONFIG, METRICS, TOKENIZER = "arm.json", "config.yaml", "metrics.jsonl", "tokenizer.json"
ENVIRONMENT = "environment.json"
"""Runs of earlier versions have none."""

PLAIN = "plain"
"""What arm.json calls an arm without marks and without meta-attention."""

BUDGETS = {"source_tokens": "budget/source_tokens", "flops": "budget/flops"}
"""What a step has cost: name here -> name in metrics.jsonl."""

SEEDS = ("seed_everything", "data.seed", "seed.weights", "seed.data", "seed.dropout")
OF_THE_ARM = {
    *("data.meta_placement", "data.meta_fraction"),
    *("model.pattern", "model.pattern_options", "model.mechanism", "model.mechanism_options"),
    *("model.recurrence", "model.recurrence_options"),
}
"""Settings that arm.json says in its own words."""
NO_MATTER = {
    *("data.seed", "data.num_workers", "data.cache_dir", "data.tokenizer", "data.vocab_size"),
    *("model.compile", "model.attention_backend", "model.activation_checkpointing"),
    *("model.init_from", "model.distill_from", "model.kinds_from"),
}
"""Settings that change nothing, or that are compared by what they stand for: the tokenizer by its file."""
OF_THE_TRAINING = {
    *("data.batch_size", "data.train_examples"),
    *("data.meta_length", "data.meta_placement_options", "data.meta_kinds"),
}
"""Settings under `data` that may differ between conditions; all others say what is learned, and must not."""
OF_THE_TRAINER = {
    f"trainer.{key}"
    for key in (
        *("accumulate_grad_batches", "gradient_clip_val", "precision", "devices", "num_nodes"),
        *("budget.source_tokens", "budget.flops"),
    )
}

WHOLE = {
    *("task_options", "position_options", "pattern_options", "mechanism_options", "recurrence_options"),
    "meta_placement_options",
}
"""Mappings in which a key that is missing is a value too: its default."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Run:
    """One run folder. `arm` is arm.json, `config` config.yaml with dotted keys, `lines` those of metrics.jsonl.

    `tokenizer` is a hash of tokenizer.json, `environment` is environment.json; each is empty where there is none.
    """

    folder: Path
    arm: Mapping[str, Any]
    config: Mapping[str, Any]
    tokenizer: str
    lines: tuple[Mapping[str, Any], ...]
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seed(self) -> tuple[Any, ...]:
        """What makes a run a seed of its own: the seeds, and the weights that it started from."""
        return (*(self.config.get(key) for key in SEEDS), self.config.get("model.init_from"))

    @cached_property
    def metrics(self) -> set[str]:
        """Names that the run logged, its budgets and steps left out."""
        return {name for line in self.lines for name in line} - {"step", *BUDGETS.values()}

    def logged(self, name: str) -> tuple[FloatArray, FloatArray]:
        """Return the steps, growing, and the values of `name`. A step logged twice counts as it was logged last."""
        by_step = {line["step"]: line[name] for line in self.lines if name in line}
        steps = sorted(by_step)
        return np.array(steps, dtype=np.float64), np.array([by_step[step] for step in steps], dtype=np.float64)

    def last(self, name: str) -> float:
        """Return the value of `name` that was logged last; NaN where none was."""
        _, values = self.logged(name)
        return float(values[-1]) if len(values) else math.nan

    def curve(self, metric: str, budget: str) -> tuple[FloatArray, FloatArray]:
        """Return what was spent (`budget`: a key of BUDGETS) at every logged value of `metric`, and the values.

        Between two steps at which the budget was logged it grows evenly, from 0 at step 0 on.

        Raises:
            UserError: the run did not log the metric, or not what it spent.
        """
        steps, values = self.logged(metric)
        if not len(steps):
            raise UserError(f"--metric={metric}: {self.folder} did not log it{nearest(metric, self.metrics)}")
        at, spent = self.logged(BUDGETS[budget])
        if not len(at) or at[-1] < steps[-1]:
            raise UserError(f"{self.folder}: {METRICS} does not say {BUDGETS[budget]} at step {steps[-1]:.0f}")
        return np.interp(steps, np.concatenate([[0.0], at]), np.concatenate([[0.0], spent])), values

    def settings(self) -> dict[str, Any]:
        """Return the settings beside the arm that matter for what is learned."""
        groups = ("model.", "data.")
        found = {
            key: value
            for key, value in self.config.items()
            if (key.startswith(groups) and key not in OF_THE_ARM | NO_MATTER) or key in OF_THE_TRAINER
        }
        if self.arm["differs"]["placement"] not in ("none", "hint", "every", "after", "fixed"):
            found["data.meta_fraction"] = self.config.get("data.meta_fraction")
        for key in ("model.init_from", "model.distill_from"):
            found[key] = self.config.get(key) is not None
        return found

    def data(self) -> dict[str, Any]:
        """Return what two runs must share for their numbers to mean the same, the task first."""
        same = {"data.task": self.config.get("data.task"), "data.corpus": self.config.get("data.corpus")}
        same |= {key: value for key, value in sorted(self.settings().items()) if key.startswith("data.")}
        free = OF_THE_TRAINING | OF_THE_ARM
        return {key: value for key, value in same.items() if key not in free}

    def read_with(self, other: "Run") -> dict[str, Any]:
        """Return what says which tokenizer this run had, to be compared with the same of `other`.

        That is its hash; where one of the two does not have tokenizer.json any more, what the configuration asks for.
        """
        if self.tokenizer and other.tokenizer:
            return {"data.tokenizer": self.tokenizer}
        return {key: self.config.get(key) for key in ("data.tokenizer", "data.vocab_size")}


@dataclass(frozen=True, eq=False)
class Condition:
    """Runs that differ in their seed alone."""

    label: str
    parameters: int
    is_plain: bool
    runs: tuple[Run, ...]
    axes: Mapping[str, Any] = field(default_factory=dict)
    """What it differs in from the others: name -> value."""


def seed_keys(runs: Sequence[Run]) -> list[object]:
    """What pairs each of some runs with a run of another condition: its seeds.

    Runs that started from different weights are told apart only where a seed is there twice.
    """
    plain = [run.seed[: len(SEEDS)] for run in runs]
    return list(plain if len(set(plain)) == len(plain) else (run.seed for run in runs))


def read_run(folder: Path) -> Run:
    """Return the run of a folder.

    Raises:
        UserError: no such folder, a file of a run is missing, or it cannot be read.
    """
    if not os.path.isdir(folder):
        raise UserError(f"{folder}: no such folder")
    for name in (CONFIG, METRICS, ARM):
        if not (folder / name).is_file():
            raise UserError(f"{folder}: expected a run folder as `fit` writes it; {name} is missing")
    try:
        config = followed(read_text(_text(folder / CONFIG), "YAML"))
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: expected a configuration, this is no YAML mapping; {error}") from error
    try:
        if isinstance(model := config.get("model"), dict):
            config["model"] = translated(model)
        if isinstance(data := config.get("data"), dict):
            config["data"] = renamed_in("data", data)
    except UserError as error:
        raise UserError(f"{folder / CONFIG}: {error}") from error
    flat = dict(_flatten(config))
    arm = _json(folder / ARM, _text(folder / ARM))
    for key, kind in (("arm", str), ("differs", dict), ("parameters", int)):
        if not isinstance(arm.get(key), kind):
            given = f"{key}={arm[key]}: " if key in arm else ""
            raise UserError(f"{folder / ARM}: {given}expected '{key}' in it, as `fit` writes it")
    if "placement" not in arm["differs"]:
        raise UserError(f"{folder / ARM}: differs={arm['differs']}: expected 'placement' in it, as `fit` writes it")
    lines = tuple(
        _numbers(folder / METRICS, line, number) for number, line in enumerate(_text(folder / METRICS).splitlines(), 1)
    )
    tokenizer = folder / TOKENIZER
    digest = hashlib.sha256(without_kinds(tokenizer.read_bytes())).hexdigest()[:12] if tokenizer.is_file() else ""
    made_with = folder / ENVIRONMENT
    environment = _json(made_with, _text(made_with)) if made_with.is_file() else {}
    return Run(folder, arm, flat, digest, tuple(line for line in lines if line.get("step") is not None), environment)


def conditions(runs: list[Run]) -> list[Condition]:
    """Group `runs` by everything but their seed, in the order in which they are given.

    Raises:
        UserError: runs on different data, or a run that counts twice.
    """
    first, known = runs[0].data(), next((run for run in runs if run.tokenizer), runs[0])
    for run in runs:
        for other, mine, theirs in ((runs[0], run.data(), first), (known, run.read_with(known), known.read_with(run))):
            for key, value in mine.items():
                if value != theirs.get(key):
                    raise UserError(
                        f"{run.folder}: {key}={_shown(value)}, but {other.folder} has {_shown(theirs.get(key))}; "
                        "expected runs on the same data"
                    )
    settings = [run.settings() for run in runs]
    keys = sorted({key for one in settings for key in one})
    # Where a fraction of marks has no meaning, it is no difference either.
    varying = [key for key in keys if len({_shown(one[key]) for one in settings if key in one}) > 1]
    groups: dict[tuple[str, int], dict[str, Run]] = {}
    folders: set[Path] = set()
    for run, one in zip(runs, settings, strict=True):
        extra = [f"{key.rpartition('.')[2]}={_shown(one[key])}" for key in varying if key in one]
        label = ", ".join([str(run.arm["arm"]), *extra])
        if (folder := run.folder.resolve()) in folders:
            raise UserError(f"{run.folder}: given twice")
        folders.add(folder)
        group = groups.setdefault((label, int(run.arm["parameters"])), {})
        if (other := group.setdefault(_shown(run.seed), run)) is not run:
            raise UserError(
                f"{run.folder}: the same arm and seed as {other.folder} ({label}, seed {run.seed[0]}); "
                "expected another seed"
            )
    found = []
    for (label, parameters), group in groups.items():
        seeds = tuple(group.values())
        found.append(Condition(label, parameters, seeds[0].arm["arm"] == PLAIN, seeds, {"condition": label}))
    return found


def _flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"model": {"bias": False}}`` -> ``("model.bias", False)``; what is free in its keys stays one value."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and key not in WHOLE:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8; expected text, as `fit` writes it") from error


def _numbers(path: Path, text: str, number: int) -> dict[str, Any]:
    line = _json(path, text, number)
    for name, value in line.items():
        if value is not None and not isinstance(value, int | float):
            raise UserError(f"{path} line {number}: {name}={value}: expected a number")
    return line


def _json(path: Path, text: str, line: int | None = None) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        found = error
    if not isinstance(found, dict):
        raise UserError(f"{path}{'' if line is None else f' line {line}'}: expected a JSON object")
    return found


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True) if not isinstance(value, str) else value
