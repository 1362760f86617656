"""From examples to what a solver reads: text up to an answer, and the answer."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from lightning_metatok.data.examples import ANSWER, META, Example, Examples
from lightning_metatok.data.tokenizer import MetaTokenizer
from lightning_metatok.tasks import Task
from tests.tasks.facts import facts


@lru_cache(maxsize=4)
def text_of_ids(tokenizer: MetaTokenizer) -> list[str]:
    """The text of every id: prompts are read one id at a time, many times faster than `Task.text` does."""
    return [tokenizer.decode([id], skip_meta=False) for id in range(tokenizer.vocab_size)]


def questions(task: Task, examples: Examples) -> Iterator[tuple[str, str]]:
    """For each answer of each example: the text before it, without marks, and the answer itself."""
    words = text_of_ids(task.lexicon.tokenizer)
    between = " " if task.lexicon.rendering == "symbols" else ""
    kept = (examples.flags & META) == 0
    pieces = [words[id] for id in examples.tokens[kept].tolist()]
    rows, is_answer = examples.rows()[kept], (examples.flags[kept] & ANSWER) > 0
    # No prompt begins with an answer: those of all prompts are told apart at once.
    steps = np.diff(is_answer.astype(int), prepend=0, append=0)
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    prompts = np.searchsorted(rows, rows[starts])
    for prompt, start, end in zip(prompts.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield between.join(pieces[prompt:start]), between.join(pieces[start:end]).strip()


def count_disagreements(task: Task, examples: Examples) -> tuple[int, int]:
    """How many answers differ from the solver's, of how many."""
    solve, rendering = facts(task.name).solve, task.lexicon.rendering
    results = [solve(prompt, rendering) == answer for prompt, answer in questions(task, examples)]
    return results.count(False), len(results)


def every(examples: Examples) -> list[Example]:
    """The examples one by one."""
    return [examples[i] for i in range(len(examples))]


def n_marks(example: Example) -> int:
    """How many meta-tokens a prompt has."""
    return int(((example.flags & META) > 0).sum())
