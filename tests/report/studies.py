"""Studies of written runs, for tests."""

from pathlib import Path
from typing import Any

import pandas as pd

from lightning_metatok.report.study import Study, of_sweep
from tests.written_runs import write_run

Values = dict[tuple[str, ...], dict[int, dict[str, float]]]


def sweep(
    folder: Path,
    axes: list[str],
    values: Values,
    *,
    states: dict[str, int] | None = None,
    told: dict[str, Any] | None = None,
    **more: Any,
) -> Study:
    """Return the study of a sweep: values of `axes` -> seed -> what the run logged last.

    Args:
        states: state -> how many runs more that are in it.
        told: what else their arm.json says.
    """
    rows, folders = [], []
    for names, by_seed in values.items():
        for seed, last in by_seed.items():
            arm = names[0] if names[0] in ("plain", "pause", "meta") else "meta"
            config = {"model.drop_positions": "both" if "dropped" in names else "none", "data.block_size": 64}
            path = folder / f"{'-'.join(names)}-{seed}"
            if not path.exists():
                write_run(
                    path, arm, seed=seed, values=[0.2, 0.4], metric="loss/val", config=config, last=last, told=told
                )
            rows.append({"state": "done", "seconds": 10.0 * seed, "seed": seed, **dict(zip(axes, names, strict=True))})
            folders.append(path)
    for state, count in (states or {}).items():
        for number in range(count):
            rows.append({"state": state, "seconds": 0.0, "seed": number, **dict.fromkeys(axes)})
            folders.append(folder / f"{state}-{number}")
    return of_sweep(pd.DataFrame(rows), folders, [*axes, "seed"], "seed", title="a sweep", **more)


def answers(**at: float) -> dict[str, float]:
    """``answers(x1=0.5, x2=0.25)`` -> what a recall run logs last."""
    return {f"answers/full_{key[1:].replace('_', '.')}x": value for key, value in at.items()}


def ablation(kept: float, dropped: float, at: int = 1) -> dict[str, float]:
    """What a text run logs last."""
    return {f"ablation/kept_{at}x": kept, f"ablation/dropped_{at}x": dropped}
