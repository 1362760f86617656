"""Task: a recall task as one config class that makes examples from (n, seed, split).

Options    what a user sets, checked; sizes and bins        `options`
Drawing    examples from their numbers                      `drawing`
Task       lengths to ask at, scores, text                  here; each task its own subclass
"""

import hashlib
import inspect
import secrets
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from lightning_metatok.data.examples import Example
from lightning_metatok.errors import UserError
from lightning_metatok.tasks.drawing import Drawing


class Score(NamedTuple):
    """How much of an answer is right: tokens that match, tokens there are, and whether all match."""

    n_right: int
    n_tokens: int
    exact: bool


@dataclass(frozen=True)
class Task(Drawing):
    """What all tasks have in common; a subclass adds its sizes and `draft`.

    Raises:
        UserError: an option cannot work; the message names its key, the value, what was expected.
    """

    def longer(self, multiple: float) -> "Task":
        """Return the task at `multiple` times the largest trained length.

        With given sizes, that many segments (bits, ...) in every prompt; with a level alone, prompts that reach between
        0.85 and 1 times the length.

        Raises:
            UserError: the task has no such sizes.
        """
        if multiple <= 0:
            raise UserError(f"lengths={multiple}: expected a positive multiple of the trained length")
        if self.size is None and self.limits is not None:
            top = round(self.limits[1] * multiple)
            return replace(self, level=None, bin=(int(0.85 * top), top))
        size = max(self.smallest_size, round(self.total_size[1] * multiple))
        changes: dict[str, Any] = {self.size_field: (size, size), "level": None, "bin": None}
        return replace(self, **changes)

    def asking_once(self) -> "Task":
        """Return the task with one question a prompt, where several are a way to train faster."""
        changes: dict[str, Any] = {"n_queries": 1} if hasattr(self, "n_queries") else {}
        return replace(self, **changes)

    def score(self, prediction: ArrayLike, example: Example) -> Score:
        """Compare predicted token ids with the answer of `example`."""
        answer, predicted = example.answer, np.asarray(prediction)
        right = int((answer[: len(predicted)] == predicted[: len(answer)]).sum())
        return Score(right, len(answer), len(predicted) == len(answer) == right)

    def text(self, example: Example) -> str:
        """Return an example as text, meta-tokens written as `<|meta|>`."""
        return self.lexicon.tokenizer.decode(example.tokens.tolist(), skip_meta=False)

    def describe(self) -> dict[str, Any]:
        """Return everything that examples depend on, besides seed and split, as plain values."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("lexicon", "haystack")}
        return {
            "task": self.name,
            **_foreign_code(type(self)),
            "rendering": self.lexicon.rendering,
            "tokenizer": self.lexicon.tokenizer.fingerprint(),
            **{key: list(value) if isinstance(value, tuple) else value for key, value in options.items()},
        }


def _foreign_code(kind: type[Task]) -> dict[str, str]:
    """What tells the class of another package, which may change from run to run, from its former self."""
    package = __name__.partition(".")[0]
    classes = [one for one in kind.__mro__ if issubclass(one, Task) and one.__module__.partition(".")[0] != package]
    if not classes:
        return {}
    digest = hashlib.sha256()
    for one in classes:
        try:
            digest.update(inspect.getsource(inspect.getmodule(one) or one).encode())
        except (OSError, TypeError):  # typed into a prompt: no file would tell that it has changed
            digest.update(secrets.token_bytes())
    return {"class": f"{kind.__module__}.{kind.__qualname__}", "code": digest.hexdigest()}
