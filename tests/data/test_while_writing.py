"""Extra tokens in text that is being written: as many, and at such places, as the rule of training says."""

import pytest

from lightning_metatok.data.injection import InjectionRule
from lightning_metatok.data.while_writing import WhileWriting

COMMA = 7


def written(
    rule: InjectionRule, n: int, *, n_source: int = 0, n_extra: int = 0, seed: int = 0, index: int = 0
) -> list[int]:
    """Numbers of the source tokens that an extra one stands behind; every third is a comma."""
    marks = WhileWriting(rule, n_source, n_extra, seed=seed, index=index, after_ids=[COMMA])
    return [i for i in range(n_source + 1, n_source + n + 1) if marks.take(COMMA if i % 3 == 0 else 1)]


def test_chunks_end_where_those_of_training_do_whatever_the_prompt() -> None:
    rule = InjectionRule(0.1, "chunk_end", options={"c": 4})
    assert written(rule, 13) == [4, 8, 12]
    assert written(rule, 6, n_source=7, n_extra=1) == [8, 12]


@pytest.mark.parametrize("placement", ["random", "periodic", "punctuation"])
def test_the_share_is_that_of_training(placement: str) -> None:
    source, rule = 3000, InjectionRule(0.1, placement)
    extra = len(written(rule, source))
    assert extra / (source + extra) == pytest.approx(0.1, abs=0.015 if placement == "random" else 0.002)
    assert written(InjectionRule(0.0, placement), 100) == []


def test_periodic_goes_on_where_the_prompt_ended() -> None:
    rule = InjectionRule(0.2, "periodic")
    assert written(rule, 12) == [2, 6, 10]
    assert written(rule, 7, n_source=5, n_extra=1) == [6, 10]


def test_punctuation_is_followed_alone() -> None:
    found = written(InjectionRule(0.2, "punctuation"), 60)
    assert found
    assert all(i % 3 == 0 for i in found)


def test_random_places_are_those_of_the_seed_and_the_index_in_one_go_or_two() -> None:
    rule = InjectionRule(0.3, "random")
    assert written(rule, 50) == written(rule, 50) != written(rule, 50, seed=1) != written(rule, 50, index=1)
    first = written(rule, 20)
    assert first + written(rule, 30, n_source=20, n_extra=len(first)) == written(rule, 50)


def test_given_slots_go_on_nowhere() -> None:
    assert written(InjectionRule(0.1, "fixed", options={"slots": [0, 3]}), 50) == []
