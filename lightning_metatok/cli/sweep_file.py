"""A sweep file: read, checked against the options of `fit`, and compared with what was started."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import lightning_metatok
from lightning_metatok.cli.bounds import PATH
from lightning_metatok.cli.option_names import option_names
from lightning_metatok.cli.sweep_values import check_seeds
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.old_keys import old_options
from lightning_metatok.sweep import PlannedRun, SweepFolder, SweepSpec, expand, read_spec
from lightning_metatok.sweep.expand import all_configs, code_version
from lightning_metatok.yaml_files import read_config

PACKAGE = Path(lightning_metatok.__file__).parent
ROOT = Path("runs/sweeps")


@dataclass(frozen=True)
class Sweep:
    """A sweep file, read, and where it lives."""

    file: Path
    spec: SweepSpec
    runs: list[PlannedRun]
    folder: SweepFolder
    code: str

    @property
    def configs(self) -> list[str]:
        """All config files."""
        return list(dict.fromkeys(path for run in self.runs for path in run.configs))

    @property
    def trains_a_task(self) -> bool:
        """Whether a recall task is trained: which keys there are depends on it."""
        if "data.task" in self.spec.set_keys():
            return True
        contents = [read_config(path) for path in all_configs(self.spec)]
        return any(isinstance(c.get("data"), dict) and c["data"].get("task") for c in contents)


def read_sweep(file: Path, folder: Path | None) -> Sweep:
    """Read and check a sweep file and the configs that it names.

    Raises:
        UserError: no such file, or a mistake in it.
    """
    if not os.path.isfile(file):
        siblings = [str(path) for path in file.parent.glob("*.y*ml")] if os.path.isdir(file.parent) else []
        raise UserError(f"{file}: no such file{nearest(str(file), siblings)}; expected a sweep file")
    spec = read_spec(read_config(str(file)), str(file))
    check_seeds(file, spec.seeds)
    code = code_version(PACKAGE)
    runs = expand(spec, code, lambda path: _read_part(file, path))
    folder = folder or Path(spec.folder or ROOT / file.stem)
    valid, expected = PATH
    if not valid(folder):
        raise UserError(f"folder={str(folder)!r}: expected {expected}")
    return Sweep(file, spec, runs, SweepFolder(folder), code)


def check_keys(sweep: Sweep) -> None:
    """Raise `UserError` for a key that no option of `fit` has. What was started once is not asked again."""
    known = [*option_names(sweep.code, sweep.trains_a_task), *old_options()]
    for key in sweep.spec.set_keys():
        if key not in known and not any(key.startswith(f"{name}.") for name in _mappings(known)):
            raise UserError(f"{sweep.file}: {key}: no such key of the configuration{nearest(key, known)}")


def as_started(sweep: Sweep) -> Sweep:
    """Return the sweep with the runs and the code that were started, which the file and the code may have left behind.

    Raises:
        UserError: nothing was started.
    """
    runs, code, _ = sweep.folder.read_plan()
    sweep.folder.check_file(sweep.file)
    if [run.name for run in runs] != [run.name for run in sweep.runs]:
        print(
            f"{sweep.file}, a config or the code has changed since these runs were started: "
            "this is about what was started; `run` starts what the file says now",
            file=sys.stderr,
        )
    return replace(sweep, runs=runs, code=code)


def _read_part(file: Path, path: str) -> dict[str, object]:
    if not os.path.isfile(path):
        folder = Path(path).parent
        siblings = [str(p) for p in folder.glob("*.y*ml")] if os.path.isdir(folder) else []
        raise UserError(f"{file}: configs: {path}: no such file{nearest(path, siblings)}")
    return dict(read_config(path))


def _mappings(known: Sequence[str]) -> list[str]:
    """Options whose value is a mapping, so that keys below them are not listed."""
    return [name for name in known if name.endswith("_options")]
