"""lm-evaluation-harness on a live model: names of tasks in, numbers with standard errors out; the extra `eval`."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.lit.live import LiveModel


@dataclass(frozen=True)
class Score:
    """One number of a task. `error`: its standard error over documents; None: the task gives none."""

    task: str
    metric: str
    value: float
    error: float | None
    n: int


def find_tasks(names: Sequence[str], folder: str | Path | None) -> Any:
    """Return the task manager of lm-eval that knows `names`.

    Args:
        folder: with tasks of the user's own, a YAML file each.

    Raises:
        UserError: a task does not exist, or there is no such folder.
    """
    from lm_eval.tasks import TaskManager

    if folder is not None and not Path(folder).is_dir():
        raise UserError(f"include_path={folder}: no such folder")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    if not names:
        raise UserError("tasks: expected the name of at least one task of lm-eval")
    if folder is not None:  # alone, if it has all of them: to look through thousands of others takes seconds
        manager = TaskManager(include_path=str(folder), include_defaults=False)
        if set(names) <= set(manager.all_tasks):
            return manager
    manager = TaskManager(include_path=None if folder is None else str(folder))
    for name in names:
        if name not in manager.all_tasks:
            raise UserError(f"tasks={name}: no such task of lm-eval{nearest(name, manager.all_tasks)}")
    return manager


def evaluate(
    live: LiveModel,
    names: Sequence[str],
    manager: Any,
    *,
    limit: int | None = None,
    n_shots: int | None = None,
    metadata: dict[str, Any] | None = None,
) -> list[Score]:
    """Return what a model scores. Neither its mode nor any generator of random numbers is touched.

    Args:
        manager: what `find_tasks` returned. limit: documents of each task; None: all.
        n_shots: examples before each question; None: what the task says. metadata: of tasks that ask for some.

    Raises:
        UserError: a data set of a task cannot be loaded.
    """
    from lm_eval import simple_evaluate

    try:
        with torch.random.fork_rng():
            found = simple_evaluate(
                model=live,
                tasks=list(names),
                task_manager=manager,
                limit=limit,
                num_fewshot=n_shots,
                log_samples=False,
                bootstrap_iters=1000,
                random_seed=None,
                numpy_random_seed=None,
                torch_random_seed=None,
                metadata=metadata,
            )
    except UserError:
        raise
    except (OSError, ImportError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"tasks={','.join(names)}: cannot be run ({type(error).__name__}: {reason})") from error
    assert found is not None, "rank 0"
    return scores(found)


def scores(found: Any) -> list[Score]:
    """The numbers in what lm-eval returns."""
    rows = []
    for task, values in found["results"].items():
        n = int(found.get("n-samples", {}).get(task, {}).get("effective", 0))
        for key, value in values.items():
            name, _, rest = key.partition(",")
            if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("_stderr") and rest:
                error = values.get(f"{name}_stderr,{rest}")
                given = float(error) if isinstance(error, int | float) else None
                rows.append(Score(task, name if rest == "none" else f"{name},{rest}", float(value), given, n))
    return rows
