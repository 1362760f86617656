"""The task of a phase: what `data` says of all phases, and what the phase says of itself, over that.

data.task, data.task_options             of all phases
data.meta_placement, data.meta_fraction  the same
data.curriculum[i].task, .options        of phase i; another task shares the rendering and its symbols alone
"""

from collections.abc import Mapping
from typing import Any

from lightning_metatok.data import MetaTokenizer, TokenStore
from lightning_metatok.errors import UserError
from lightning_metatok.tasks import Task, build
from lightning_metatok.tasks.curriculum import Phase


def rendering_of(options: Mapping[str, Any]) -> str:
    """Return how words are written, as `symbols` or as `text`, by the options of a task."""
    return str(options.get("rendering", "symbols"))


def task_of_phase(
    phase: Phase,
    number: int,
    *,
    name: str,
    options: Mapping[str, Any],
    placement: str,
    fraction: float,
    tokenizer: MetaTokenizer,
    haystack: TokenStore | None,
) -> Task:
    """Return the task of a phase.

    Args:
        phase, number: what the curriculum says of it, and which one it is, from 0.
        name: data.task.
        options: data.task_options.
        placement: data.meta_placement.
        fraction: data.meta_fraction.
        tokenizer: of the rendering.
        haystack: text that needles hide in, for a task that needs it.

    Raises:
        UserError: options that cannot work; it names where they stand.
    """
    own, rendering = phase.options, rendering_of(options)
    shared: dict[str, Any] = {key: options[key] for key in ("symbols", "coupled") if key in options}
    common = options if phase.task in (None, name) else shared
    place = f"data.curriculum[{number}].options"
    for given, where in ((options, "data.task_options"), (own, place)):
        for option, key in (("placement", "data.meta_placement"), ("mark_fraction", "data.meta_fraction")):
            if option in given:
                raise UserError(f"{where}.{option}={given[option]}: expected {key} instead")
    if own.get("rendering", rendering) != rendering:
        raise UserError(f"{place}.rendering={own['rendering']}: expected {rendering}, one for all phases")
    marked = {"mark_fraction": fraction} if fraction > 0 else {}
    try:
        return build(
            phase.task or name,
            tokenizer=tokenizer,
            haystack=haystack,
            placement=placement if fraction > 0 else "none",
            **{**marked, **common, "rendering": rendering, **own},
        )
    except UserError as error:
        key = str(error).removeprefix("data.task_options.").partition("=")[0].partition(":")[0]
        raise UserError(str(error).replace("data.task_options", place, 1) if key in own else str(error)) from error
