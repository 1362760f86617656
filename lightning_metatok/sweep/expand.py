"""The runs that a sweep file stands for.

    run id = the first 10 hex digits of sha256(contents of its configs, its options, the code)

So the same run is never done twice, and a changed one never writes over another: it is another run. Files count by
what they say, not by their names, comments or layout.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from lightning_metatok.errors import UserError
from lightning_metatok.sweep.spec import ARM, SEED, SweepSpec
from lightning_metatok.yaml_files import value_of

ID_DIGITS = 10
LONGEST_LABEL = 80
UNSAFE = re.compile(r"[^A-Za-z0-9._=-]+")
"""What cannot stand in the name of a run."""


@dataclass(frozen=True)
class PlannedRun:
    """One run.

    Attributes:
        id: of its configuration and its code.
        label: what it differs in, readable, safe as the name of a file.
        axes: axis -> value.
        configs: files, in the order in which they count.
        options: dotted key -> value, which count after all files.
    """

    id: str
    label: str
    axes: Mapping[str, Any]
    configs: tuple[str, ...]
    options: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.label}-{self.id}"

    def arguments(self) -> list[str]:
        """Arguments of `fit`, without the folder."""
        return [
            *(f"--config={path}" for path in self.configs),
            *(f"--{key}={as_argument(value)}" for key, value in self.options.items()),
        ]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "PlannedRun":
        """From JSON.

        Raises:
            ValueError, KeyError, TypeError: it is none of `as_dict`.
        """
        run = cls(**{**content, "configs": tuple(content["configs"])})
        texts = (run.id, run.label, *run.configs)
        if not (isinstance(run.axes, Mapping) and isinstance(run.options, Mapping)):
            raise ValueError(content)
        if not all(isinstance(text, str) for text in texts) or UNSAFE.search(run.name):
            raise ValueError(content)
        return run


def as_argument(value: Any) -> str:
    """The value as it is written on a command line; text as it is, all else as JSON, which is YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def expand(spec: SweepSpec, code: str, read: Callable[[str], Mapping[str, Any]]) -> list[PlannedRun]:
    """Return all runs, in the order of the file; seeds vary fastest.

    Args:
        spec: the sweep. code: a hash of the code. read: returns what a config file says.

    Raises:
        UserError: nothing is left to run, or two runs are the same.
    """
    contents = {path: canonical(read(path)) for path in all_configs(spec)}
    runs = []
    for axes in combinations(spec):
        arm = spec.arms.get(axes.get(ARM, ""))
        configs = (*spec.configs, *(arm.configs if arm else ()))
        options = {**spec.set, **(arm.set if arm else {})}
        options |= {key: value for key, value in axes.items() if key != ARM}
        meant = canonical({key: meaning(value) for key, value in options.items()})
        identity = [[contents[path] for path in configs], meant, code]
        digest = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:ID_DIGITS]
        runs.append(PlannedRun(digest, label(axes), axes, configs, options))
    if not runs:
        raise UserError("skip: every run is left out; expected at least one that is not")
    by_id: dict[str, PlannedRun] = {}
    for run in runs:
        if run.id in by_id:
            both = " and ".join(dict.fromkeys((by_id[run.id].label, run.label)))
            both = both if " and " in both else f"{both} and {both}, as written {_differing(by_id[run.id], run)},"
            raise UserError(f"{both} are the same run; expected values that differ")
        by_id[run.id] = run
    return runs


def _differing(one: PlannedRun, other: PlannedRun) -> str:
    """Values of two runs that are written differently."""
    pairs = [(repr(one.axes[key]), repr(other.axes[key])) for key in one.axes]
    return ", ".join(f"{mine} and {theirs}" for mine, theirs in pairs if mine != theirs) or "twice"


def combinations(spec: SweepSpec) -> Iterator[dict[str, Any]]:
    """Axes and their values, one mapping a run, without those that `skip` names."""
    choices: list[list[dict[str, Any]]] = []
    if spec.arms:
        choices.append([{ARM: name} for name in spec.arms])
    choices += [[{key: value} for value in values] for key, values in spec.grid.items()]
    for group in spec.zip:
        keys = list(group)
        choices.append([dict(zip(keys, row, strict=True)) for row in zip(*group.values(), strict=True)])
    choices.append([{SEED: seed} for seed in spec.seeds])
    for parts in itertools.product(*choices):
        axes = {key: value for part in parts for key, value in part.items()}
        if not any(_matches(axes, condition) for condition in spec.skip):
            yield axes


def _matches(axes: Mapping[str, Any], condition: Mapping[str, Any]) -> bool:
    """Whether all keys have the value of the condition, or one of its list."""
    for key, value in condition.items():
        wanted = [value, *value] if isinstance(value, list) else [value]
        if canonical(meaning(axes[key])) not in [canonical(meaning(one)) for one in wanted]:
            return False
    return True


def all_configs(spec: SweepSpec) -> list[str]:
    """Every config file that the sweep names, once."""
    return list(dict.fromkeys([*spec.configs, *(path for arm in spec.arms.values() for path in arm.configs)]))


def canonical(content: Any) -> str:
    """The same text for the same keys and values, in whatever order and layout."""
    return json.dumps(content, sort_keys=True, default=str)


def meaning(value: Any) -> Any:
    """What `fit` reads in an option: text is YAML, and 1.0 is 1, so that values which are the same are equal."""
    if isinstance(value, str):
        with suppress(yaml.YAMLError, RecursionError):
            value = value_of(value)
    if isinstance(value, list):
        return [meaning(one) if not isinstance(one, str) else one for one in value]
    if isinstance(value, Mapping):
        return {key: meaning(one) if not isinstance(one, str) else one for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def label(axes: Mapping[str, Any]) -> str:
    """The values of all axes, joined; numbers with the last part of their key, so that they say what they are."""
    parts = []
    for key, value in axes.items():
        short = "s" if key == SEED else key.rpartition(".")[2]
        says_enough = isinstance(meaning(value), str)
        text = value if says_enough else f"{short}{value}" if key == SEED else f"{short}={as_argument(value)}"
        parts.append(re.sub(r"[^A-Za-z0-9._=]+", "_", text).strip("_"))
    return "-".join(parts)[:LONGEST_LABEL]


def code_version(package: Path) -> str:
    """Hash of all sources of the package."""
    digest = hashlib.sha256()
    for path in sources(package):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:ID_DIGITS]


def sources(package: Path) -> Sequence[Path]:
    """Files of the package that make up its code."""
    return sorted(path for path in package.rglob("*") if path.suffix in (".py", ".json", ".typed") and path.is_file())
