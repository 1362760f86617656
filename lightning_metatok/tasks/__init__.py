"""Tasks: the recall suite, whose answers stand somewhere in the prompt, and those of other systems; one a file.

`build("list_recall", placement="every", n_lists=(2, 5))` returns a `Task`; `examples(n, seed, split)` makes prompts.
Read in this order: `task`, `list_recall`, then `draft` and `lexicon` (words and their renderings), `marks` (where
meta-tokens go), `drawing`, `draws`. Tasks of other systems: `strings`, `reckoning`, `associations`, `grammar`. A
new task is a file with a class, and its name in `OF_OTHERS`; a class of another package needs none:
`build("my_lab.echo.Echo")`.
"""

from dataclasses import MISSING, fields
from typing import Any

from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.errors import UserError, nearest
from lightning_metatok.registry import Registry
from lightning_metatok.tasks.arithmetic import Addition, Multiplication
from lightning_metatok.tasks.associations.compositional_recall import CompositionalRecall
from lightning_metatok.tasks.associations.depo import Depo
from lightning_metatok.tasks.associations.forgetting_recall import ForgettingRecall
from lightning_metatok.tasks.copying import Copying
from lightning_metatok.tasks.grammar.cogs import Cogs
from lightning_metatok.tasks.grammar.pcfg import Pcfg
from lightning_metatok.tasks.grammar.scan import Scan
from lightning_metatok.tasks.lexicon import SYMBOLS, Lexicon, symbol_tokenizer
from lightning_metatok.tasks.list_recall import ListRecall
from lightning_metatok.tasks.multi_query_recall import MultiQueryRecall
from lightning_metatok.tasks.needle import Needle
from lightning_metatok.tasks.options import LEVELS
from lightning_metatok.tasks.parity import Parity
from lightning_metatok.tasks.reckoning.lego import Lego
from lightning_metatok.tasks.reckoning.mano import Mano
from lightning_metatok.tasks.reckoning.minesweeper import Minesweeper
from lightning_metatok.tasks.reckoning.planted import Planted
from lightning_metatok.tasks.reckoning.polynomial import Polynomial
from lightning_metatok.tasks.reckoning.sum import Sum
from lightning_metatok.tasks.segment_counting import SegmentCounting
from lightning_metatok.tasks.strings.count import Count
from lightning_metatok.tasks.strings.dedupe import Dedupe
from lightning_metatok.tasks.strings.position_retrieval import PositionRetrieval
from lightning_metatok.tasks.strings.recopy import Recopy
from lightning_metatok.tasks.strings.repeating import Repeating
from lightning_metatok.tasks.strings.reverse import Reverse
from lightning_metatok.tasks.strings.sort import Sort
from lightning_metatok.tasks.task import Score, Task
from lightning_metatok.tasks.variable_tracking import VariableTracking

RECALL: tuple[type[Task], ...] = (
    *(ListRecall, SegmentCounting, Parity, Copying, MultiQueryRecall, Needle, VariableTracking),
    *(Addition, Multiplication),
)
"""What `docs/recall.md` is about."""
OF_OTHERS: tuple[type[Task], ...] = (
    *(Repeating, Reverse, Sort, Count, Recopy, Dedupe, PositionRetrieval),
    *(Planted, Depo),
    *(Sum, Polynomial, Lego),
    *(CompositionalRecall, ForgettingRecall, Mano, Minesweeper),
    *(Scan, Pcfg, Cogs),
)
"""Tasks of other systems, `docs/tasks.md`."""
OWN: tuple[type[Task], ...] = (*RECALL, *OF_OTHERS)
TASKS: Registry[Task] = Registry(
    "data.task",
    Task,  # a base to compare with, never made
    {task.name: task for task in OWN},
    group="tasks",
)
"""Tasks by name; `TASKS.resolve` also takes the dotted path of a class."""


def build(name: str, *, tokenizer: MetaTokenizer | None = None, haystack: Any = None, **options: Any) -> Task:
    """Return the task `name`.

    Args:
        name: a key of `TASKS`, or the dotted path of a class that derives from `Task`.
        tokenizer: for rendering text; symbols bring their own, with as many kinds of meta-tokens.
        haystack: a `TokenStore` of real text, for tasks that hide something in it.
        options: `rendering` (symbols, the default, or text), `symbols` (how many numbers, names and items there are in
            that rendering: a list of three) and the fields of the task's class.

    Raises:
        UserError: no such task, no such option, or an option that cannot work.
    """
    kind = TASKS.resolve(name)
    known = [
        "rendering",
        "symbols",
        *(f.name for f in fields(kind) if f.default is not MISSING and f.name != "haystack"),
    ]
    for option in options:
        if option not in known:
            raise UserError(f"data.task_options.{option}: {name} has no such option{nearest(option, known)}")
    rendering = options.pop("rendering", "symbols")
    if rendering not in kind.renderings:
        raise UserError(
            f"data.task_options.rendering={rendering}: expected one of {', '.join(kind.renderings)}"
            f"{nearest(str(rendering), list(kind.renderings))}"
        )
    symbols = read_symbols(options.pop("symbols", None))
    if rendering == "symbols":
        tokenizer = symbol_tokenizer(*symbols).with_kinds(1 if tokenizer is None else len(tokenizer.kinds))
    assert tokenizer is not None, "text needs a tokenizer"
    return kind(Lexicon(rendering, tokenizer, kind.phrases, symbols), haystack, **options)


def read_symbols(given: Any) -> tuple[int, int, int]:
    """Return the option `symbols`: how many numbers, names and items there are.

    Raises:
        UserError: not three integers of at least 2.
    """
    counts = SYMBOLS if given is None else tuple(given) if isinstance(given, list | tuple) else (given,)
    if len(counts) != 3 or not all(type(count) is int and count >= 2 for count in counts):
        raise UserError(
            f"data.task_options.symbols={given}: expected three integers [numbers, names, items], 2 or more"
        )
    return counts


__all__ = ["LEVELS", "OF_OTHERS", "RECALL", "TASKS", "Score", "Task", "build", "read_symbols", "symbol_tokenizer"]
