"""What came out of asking: cells (condition x length) and slices of them, as a table and as CSV.

    marks            1x (39 tokens)         2x (71 tokens)
    as trained         0.93 [0.91, 0.94]      0.61 [0.58, 0.64]
    marks removed      0.33 [0.30, 0.36]      0.30 [0.27, 0.33]
                      -0.60 [-0.63, -0.57]   -0.31 [-0.35, -0.28]

Shares of exact answers with Wilson's interval; below, their difference on the same items with a bootstrap interval.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_metatok.analysis.statistics import mcnemar, paired_bootstrap, wilson_interval
from lightning_metatok.arrays import IntArray
from lightning_metatok.data.examples import ANSWER, CLOSES_TARGET, META, OPENS_TARGET, Examples
from lightning_metatok.lit.answers.ask import Answers
from lightning_metatok.lit.answers.conditions import MarkCondition

DECIDES = (0.2, 0.95)
"""Between these accuracies a comparison can show something; beyond, nearly all answers are wrong, or right."""
MOST_GROUPS = 12
"""A slice of more different values is split into groups of about equal size, so many."""
ERRORS = ("another token of the target segment", "elsewhere in the prompt", "not in the prompt")
TABLE_WIDTH = 120


@dataclass(frozen=True)
class AnswerCell:
    """One condition at one length.

    `exact` is the share of prompts whose whole answer is right, with Wilson's interval. `token_accuracy` is the share
    of answer tokens; its interval takes n, the number of prompts, for the number of trials, because tokens of one
    answer are not independent. `in_target`, `in_prompt` and `outside` are shares of prompts, by what the first wrong
    token is (see `error_kinds`); with `exact` they add up to 1.

    The last four compare with the undisturbed prompts (None there): mean difference in exact answers on the same items,
    its interval, and McNemar's p. A cell is `informative` unless it, and what it is compared with, are both nearly
    always right or both nearly always wrong (see DECIDES).
    """

    condition: str
    label: str
    kind: str
    multiple: float
    tokens: float
    n: int
    exact: float
    low: float
    high: float
    token_accuracy: float
    token_low: float
    token_high: float
    in_target: float
    in_prompt: float
    outside: float
    informative: bool
    difference: float | None = None
    diff_low: float | None = None
    diff_high: float | None = None
    mcnemar_p: float | None = None

    @property
    def scalars(self) -> dict[str, float]:
        """Exact answers and right tokens of answers, under their names in TensorBoard and metrics.jsonl."""
        name = f"{self.condition}_{self.multiple:g}x"
        return {f"answers/{name}": self.exact, f"answer_tokens/{name}": self.token_accuracy}


@dataclass(frozen=True)
class Slice:
    """The answers of a cell whose slice `name` is from `smallest` to `largest`."""

    condition: str
    multiple: float
    name: str
    smallest: int
    largest: int
    n: int
    exact: float
    low: float
    high: float
    token_accuracy: float


def make_cell(
    condition: MarkCondition,
    multiple: float,
    examples: Examples,
    answers: Answers,
    full: Answers | None = None,
) -> AnswerCell:
    """Return the cell of a condition.

    Args:
        examples: the prompts as they were asked. answers: what came back.
        full: what the undisturbed prompts of the same items got; None for these themselves.
    """
    n, exact = len(examples), float(answers.exact.mean())
    token_accuracy = answers.token_accuracy
    (low, token_low), (high, token_high) = wilson_interval(
        [int(answers.exact.sum()), min(n, round(token_accuracy * n))], n
    )
    kinds = np.bincount(error_kinds(examples, answers), minlength=4) / n
    compared = [exact] if full is None else [exact, float(full.exact.mean())]
    smallest, largest = DECIDES
    decides = not (max(compared) < smallest or min(compared) > largest)
    cell = AnswerCell(
        condition=condition.name,
        label=condition.label,
        kind=condition.kind,
        multiple=multiple,
        tokens=float(examples.lengths.mean()),
        n=n,
        exact=exact,
        low=float(low),
        high=float(high),
        token_accuracy=token_accuracy,
        token_low=float(token_low),
        token_high=float(token_high),
        in_target=float(kinds[1]),
        in_prompt=float(kinds[2]),
        outside=float(kinds[3]),
        informative=decides,
    )
    if full is None:
        return cell
    difference = paired_bootstrap(answers.exact, full.exact)
    compared_with_full = {
        "difference": difference.mean,
        "diff_low": difference.low,
        "diff_high": difference.high,
        "mcnemar_p": mcnemar(answers.exact, full.exact),
    }
    return AnswerCell(**{**asdict(cell), **compared_with_full})


def error_kinds(examples: Examples, answers: Answers) -> IntArray:
    """Return 0 for an exact answer, else 1, 2, 3 for the ERRORS, by the first wrong token of the answer, [n].

    A token that stands in the target segment and elsewhere counts as of the segment. Neither the answer nor marks are
    of the prompt.
    """
    flags, rows = examples.flags, examples.rows()
    of_prompt = (flags & (ANSWER | META)) == 0
    steps = ((flags & OPENS_TARGET) > 0).astype(np.int64) - ((flags & CLOSES_TARGET) > 0)
    depth = np.cumsum(steps)
    depth -= np.concatenate([[0], depth])[examples.offsets[:-1]][rows]  # each prompt starts outside
    span = int(max(examples.tokens.max(), answers.wrong.max())) + 1
    keys = rows * span + examples.tokens
    wrong = np.arange(len(examples)) * span + answers.wrong
    kinds = np.full(len(examples), 3, dtype=np.int64)
    kinds[np.isin(wrong, keys[of_prompt])] = 2
    kinds[np.isin(wrong, keys[of_prompt & (depth > 0)])] = 1
    kinds[answers.exact] = 0
    return kinds


def make_slices(
    condition: MarkCondition,
    multiple: float,
    examples: Examples,
    answers: Answers,
) -> list[Slice]:
    """Return the accuracy of every group of every slice of `examples`, the UNDISTURBED prompts of the items.

    So a group holds the same items under all conditions.
    """
    found = []
    for name, values_n in examples.slices.items():
        chosen = groups(values_n)
        n_right = [int(answers.exact[in_group].sum()) for in_group in chosen]
        lows, highs = wilson_interval(n_right, [int(in_group.sum()) for in_group in chosen])
        for in_group, right, low, high in zip(chosen, n_right, lows, highs, strict=True):
            values, n = values_n[in_group], int(in_group.sum())
            tokens = float(answers.n_right[in_group].sum() / answers.n_tokens[in_group].sum())
            found.append(
                Slice(
                    condition.name,
                    multiple,
                    name,
                    int(values.min()),
                    int(values.max()),
                    n,
                    right / n,
                    float(low),
                    float(high),
                    tokens,
                )
            )
    return found


def groups(values_n: IntArray, most: int = MOST_GROUPS) -> list[NDArray[np.bool_]]:
    """Return which items belong to each group of values, in ascending order; no group is empty.

    Each value is a group, unless there are more than `most`: then groups of about equal size. What has no value, -1,
    is a group of its own.
    """
    values_n = np.asarray(values_n)
    different = np.unique(values_n)
    if len(different) <= most:
        return [values_n == value for value in different]
    known = values_n >= 0
    edges = np.unique(np.quantile(values_n[known], np.linspace(0, 1, most + 1)[1:-1]).round())
    number_n = np.where(known, np.searchsorted(edges, values_n, side="right"), -1)
    return [number_n == number for number in np.unique(number_n)]


# -- the table


def print_answers(console: Console, cells: Sequence[AnswerCell]) -> None:
    """Print the cells, rows conditions, columns lengths; in several tables where one would be too wide."""
    if not cells:
        return
    title = "\nexact answers [95 % interval]; below, the difference to undisturbed prompts, same items"
    console.print(Text(title), soft_wrap=True)
    for table in _tables(cells, console.width):
        console.print(table)
    if not all(cell.informative for cell in cells):
        smallest, largest = DECIDES
        note = f"~ decides nothing: nearly all answers are wrong (below {smallest}) or right (above {largest})"
        console.print(Text(note), soft_wrap=True)


def _tables(cells: Sequence[AnswerCell], width: int) -> list[Table]:
    """As few tables as the width allows."""
    multiples = sorted({cell.multiple for cell in cells})
    wide = Console(width=10 * TABLE_WIDTH)
    tables: list[Table] = []
    for n_columns in range(len(multiples), 0, -1):
        starts = range(0, len(multiples), n_columns)
        parts = [multiples[start : start + n_columns] for start in starts]
        tables = [_table([cell for cell in cells if cell.multiple in part]) for part in parts]
        if all(wide.measure(table).maximum <= width for table in tables):
            break
    return tables


def _table(cells: Sequence[AnswerCell]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 0, 0, 1))
    table.add_column("marks", no_wrap=True)
    multiples = sorted({cell.multiple for cell in cells})
    by_place = {(cell.condition, cell.multiple): cell for cell in cells}
    for multiple in multiples:
        undisturbed = next(cell for cell in cells if cell.multiple == multiple)
        table.add_column(f"{multiple:g}x ({undisturbed.tokens:.0f} tokens)", justify="right", no_wrap=True)
    for condition, label in dict.fromkeys((cell.condition, cell.label) for cell in cells):
        row = [by_place.get((condition, multiple)) for multiple in multiples]
        table.add_row(label, *(_estimate(cell) for cell in row))
        if any(cell is not None and cell.difference is not None for cell in row):
            table.add_row("", *(_difference(cell) for cell in row))
    return table


def _estimate(cell: AnswerCell | None) -> str:
    if cell is None:
        return ""
    return f"{'' if cell.informative else '~'}{cell.exact:.2f} [{cell.low:.2f}, {cell.high:.2f}]"


def _difference(cell: AnswerCell | None) -> str:
    if cell is None or cell.difference is None:
        return ""
    # Adding 0 turns -0.00 into 0.00.
    mean, low, high = (round(value or 0.0, 2) + 0.0 for value in (cell.difference, cell.diff_low, cell.diff_high))
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


# -- CSV


def to_csv(rows: Iterable[AnswerCell] | Iterable[Slice], kind: type[AnswerCell] | type[Slice]) -> str:
    """Return a header and one line a row; None is empty, shares keep six digits."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = [field.name for field in fields(kind)]
    writer.writerow(names)
    for row in rows:
        values = (getattr(row, name) for name in names)
        writer.writerow([f"{value:.6g}" if isinstance(value, float) else value for value in values])
    return text.getvalue()
