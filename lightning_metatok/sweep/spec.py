"""What a sweep file says: which runs there are, what they need, and what is collected of them.

configs: [conf/task/list_recall_nano.yaml]     # as after `fit --config`
set: {trainer.max_steps: 600}                  # options of all runs
arms:                                          # named bundles of configs and options
  plain: {configs: [conf/arm/plain.yaml]}
  meta: {configs: [conf/arm/meta.yaml]}
grid:                                          # every value of a key with every value of the others
  model.position: [rotary, none]
  model.drop_positions: [none, both]
zip:                                           # keys that go together, value by value
  - {model.d_model: [64, 128], model.n_heads: [2, 4]}
skip:                                          # combinations that are left out; a list: any of these
  - {arm: plain, model.drop_positions: both}
seeds: [1, 2, 3]                               # seed_everything
minutes: 3                                     # what a run is expected to take
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_metatok.errors import UserError, nearest

ARM, SEED = "arm", "seed_everything"
"""Names of two axes that are no keys of `grid`: they can stand in `skip`."""


@dataclass
class Resources:
    """What SLURM is asked for. Times as their names say; None leaves it to the cluster's defaults."""

    partition: str | None = None
    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    memory: str | None = None
    minutes: int = 60
    signal_lead_s: int = 120
    requeue: bool = True
    concurrency: int | None = None
    sbatch: list[str] = field(default_factory=list)

    def check(self, where: str) -> None:
        """Raise `UserError` for numbers that cannot be."""
        least = {"nodes": 1, "tasks_per_node": 1, "gpus_per_node": 0, "cpus_per_task": 1, "minutes": 1}
        least |= {"signal_lead_s": 1} | ({} if self.concurrency is None else {"concurrency": 1})
        for key, low in least.items():
            if (value := getattr(self, key)) < low:
                raise UserError(f"{where}: resources.{key}={value}: expected at least {low}")
        if self.signal_lead_s >= 60 * self.minutes:
            raise UserError(
                f"{where}: resources.signal_lead_s={self.signal_lead_s}: expected fewer seconds than the time limit, "
                f"resources.minutes={self.minutes}"
            )


@dataclass
class Arm:
    """A named bundle of configs and options."""

    configs: list[str] = field(default_factory=list)
    set: dict[str, Any] = field(default_factory=dict)


@dataclass
class SweepSpec:
    """A sweep file, checked. `collect`: names of metrics.jsonl; none given: all of them."""

    configs: list[str] = field(default_factory=list)
    folder: str | None = None
    set: dict[str, Any] = field(default_factory=dict)
    arms: dict[str, Arm] = field(default_factory=dict)
    grid: dict[str, list[Any]] = field(default_factory=dict)
    zip: list[dict[str, list[Any]]] = field(default_factory=list)
    skip: list[dict[str, Any]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1337])
    minutes: float = 10.0
    finished: list[str] = field(default_factory=list)
    """Metrics that must be logged, too, for a run that ended well to count as finished."""
    collect: list[str] = field(default_factory=list)
    resources: Resources = field(default_factory=Resources)

    def set_keys(self) -> list[str]:
        """All keys of the configuration that the sweep sets."""
        sets = [self.set, *(arm.set for arm in self.arms.values()), self.grid, *self.zip]
        return sorted({key for part in sets for key in part})

    def axes(self) -> list[str]:
        """What runs differ in, in the order of the file."""
        names = [ARM] if self.arms else []
        return [*names, *self.grid, *(key for group in self.zip for key in group), SEED]


def read_spec(content: Mapping[str, Any], where: str) -> SweepSpec:
    """Return the sweep that `content` stands for, keys and types checked.

    Args:
        content: keys and values of the file. where: its name, for messages.

    Raises:
        UserError: an unknown key, a value of the wrong type, or axes that contradict each other.
    """
    _check_keys(content, SweepSpec, where, "")
    for name, arm in (content.get("arms") or {}).items():
        if arm is not None and isinstance(arm, Mapping):
            _check_keys(arm, Arm, where, f"arms.{name}.")
    if isinstance(content.get("resources"), Mapping):
        _check_keys(content["resources"], Resources, where, "resources.")
    given = {key: value for key, value in content.items() if value is not None}
    given["arms"] = {str(name): arm or {} for name, arm in (given.get("arms") or {}).items()}
    try:
        # Unresolved: ${...} in options is left to the run.
        plain: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(SweepSpec), given), resolve=False)
    except OmegaConfBaseException as error:
        line = str(error).partition("\n")[0]
        raise UserError(f"{where}: {getattr(error, 'full_key', '') or 'value'}: {line}") from error
    plain["arms"] = {name: Arm(**arm) for name, arm in plain["arms"].items()}
    spec = SweepSpec(**{**plain, "resources": Resources(**plain["resources"])})
    _check(spec, where)
    return spec


def _check_keys(content: Mapping[str, Any], kind: type, where: str, prefix: str) -> None:
    assert is_dataclass(kind)
    known = [f.name for f in fields(kind)]
    for key in content:
        if key not in known:
            raise UserError(
                f"{where}: unknown key '{prefix}{key}'{nearest(str(key), known)} (expected some of {', '.join(known)})"
            )


def _check(spec: SweepSpec, where: str) -> None:
    if not spec.configs and not (spec.arms and all(arm.configs for arm in spec.arms.values())):
        raise UserError(
            f"{where}: configs=[]: expected at least one file, as after `fit --config`, here or in every arm"
        )
    if not spec.seeds or len(set(spec.seeds)) < len(spec.seeds):
        raise UserError(f"{where}: seeds={spec.seeds}: expected different integers")
    if spec.minutes <= 0:
        raise UserError(f"{where}: minutes={spec.minutes}: expected a number above 0")
    spec.resources.check(where)
    for key, values in spec.grid.items():
        if not values:
            raise UserError(f"{where}: grid.{key}=[]: expected at least one value")
    for number, group in enumerate(spec.zip):
        lengths = {key: len(values) for key, values in group.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise UserError(f"{where}: zip[{number}]: expected as many values of each key, got {lengths}")
    axes = spec.axes()
    if twice := {key for key in axes if axes.count(key) > 1}:
        raise UserError(f"{where}: {', '.join(sorted(twice))}: expected each key in one place of grid and zip")
    for key in (SEED, "run_dir", "ckpt_path"):
        if key in spec.set_keys():
            instead = "seeds" if key == SEED else "no value: the sweep says where runs go"
            raise UserError(f"{where}: {key}: expected {instead}")
    for number, condition in enumerate(spec.skip):
        if not condition:
            raise UserError(f"{where}: skip[{number}]={{}}: expected keys and values; this would leave out every run")
        for key in condition:
            if key not in axes:
                raise UserError(f"{where}: skip[{number}].{key}: expected one of {', '.join(axes)}{nearest(key, axes)}")
