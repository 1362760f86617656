"""Every causal probe says what is known of a model whose marks carry the answer, and of its twin, whose marks point."""

from collections.abc import Callable
from typing import Any

import pytest
from pandas import DataFrame

from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.probes import Probe, Subject
from lightning_metatok.probes.causal import Eviction, Knockout, Paths
from lightning_metatok.probes.patching import Patching
from tests.model.known_truth import SYMBOLS, Truth, config_of, known_truth
from tests.probes.conftest import subject_of

SEEDS = [0, 1, 2]
Asked = Callable[[Truth, Probe, int], DataFrame]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    """A function that gives the table of a probe of a model; the seed is that of weights' noise and of prompts."""
    subjects: dict[tuple[Truth, int], Subject] = {}
    cache_dir = str(tmp_path_factory.mktemp("cache"))

    def ask(truth: Truth, probe: Probe, seed: int) -> DataFrame:
        if (truth, seed) not in subjects:
            options: dict[str, Any] = {"symbols": list(SYMBOLS), "n_pairs": [3, 3], "n_queries": 1}
            data = TaskDataModule(
                task="multi_query_recall",
                task_options={**options, "question_mark": "after_key"},
                meta_placement="every",
                validation_examples=8,
                cache_dir=cache_dir,
                seed=seed,
            )
            module = MetaTokenLM(**config_of(truth))
            module.model.load_state_dict(known_truth(truth, seed).state_dict())
            subjects[truth, seed] = subject_of(module, data, 64)
        probe.check(subjects[truth, seed])
        (finding,) = probe.run(subjects[truth, seed])
        return finding.table

    return ask


def accuracies(table: DataFrame) -> dict[str, float]:
    return dict(zip(table.trial, table.accuracy, strict=True))


def lost(accuracies: dict[str, float]) -> set[str]:
    assert accuracies["intact"] == 1
    assert all(value < 0.4 or value > 0.5 for value in accuracies.values()), "half right says nothing"
    return {trial for trial, accuracy in accuracies.items() if accuracy < 0.4}


@pytest.mark.parametrize("seed", SEEDS)
def test_eviction(seed: int, asked: Asked) -> None:
    """Four last tokens are one pair of three with its marks."""
    carry, point = (accuracies(asked(truth, Eviction(windows=[4]), seed)) for truth in ("carry", "point"))
    assert lost(carry) == {"target", "last_4", "random", "nothing"}
    assert carry["marks"] == carry["target_marks"] == carry["marks_last_4"] == 1
    assert lost(point) == {"marks", "target_marks", "last_4", "marks_last_4", "nothing"}
    assert point["target"] == 1


@pytest.mark.parametrize("seed", SEEDS)
def test_paths(seed: int, asked: Asked) -> None:
    carry, point = (accuracies(asked(truth, Paths(), seed)) for truth in ("carry", "point"))
    through_marks = {"question_marks", "question_target_marks", "question_both", "last_marks"}
    assert lost(carry) == through_marks | {"marks_target", "marks_body"}
    assert lost(point) == {"question_target", "last_target", "question_both", "target_marks"}
    for found in (carry, point):
        assert {value for value in found.values() if value > 0.5} == {1.0}


@pytest.mark.parametrize("seed", SEEDS)
def test_paths_within_a_layer(seed: int, asked: Asked) -> None:
    """Marks read and are read in one layer."""
    first, second = (accuracies(asked("carry", Paths(layers=[layer]), seed)) for layer in (0, 1))
    assert {"question_marks", "marks_target"} <= lost(first)
    assert not lost(second)


@pytest.mark.parametrize("seed", SEEDS)
def test_knockout_and_silencing(seed: int, asked: Asked) -> None:
    carry, point = (accuracies(asked(truth, Knockout(), seed)) for truth in ("carry", "point"))
    assert lost(carry) == {"closing", "target_marks", "all_marks", "silent", "silent_0"}
    assert carry["opening"] == carry["other_marks"] == carry["silent_1"] == 1
    assert lost(point) == {"all_marks"}
    assert point["opening"] < 1, "the first pair has no other mark before it"
    assert {point[name] for name in ("closing", "silent", "silent_0", "silent_1", "silent_2")} == {1.0}


SELF, META = "self_attention", "meta_attention"
FOLLOWS: dict[Truth, dict[str, set[tuple[int, str]]]] = {
    # who takes the answer along, and where; everybody else nowhere
    "carry": {
        "list": {(0, "before"), (0, f"values_of_{SELF}")},
        "closing": {(0, f"after_{SELF}"), (0, f"values_of_{META}")},
        "marks": {(0, f"after_{SELF}"), (0, f"values_of_{META}")},
        "last": {(0, f"after_{META}"), (1, "before"), (1, f"after_{SELF}"), (1, f"after_{META}")},
    },
    "point": {
        "list": {
            *((layer, place) for layer in (0, 1) for place in ("before", f"after_{SELF}", f"after_{META}")),
            (2, "before"),
            (2, f"values_of_{SELF}"),
        },
        "last": {(2, f"after_{SELF}"), (2, f"after_{META}")},
    },
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("truth", FOLLOWS)
@pytest.mark.parametrize("seed", SEEDS)
def test_patching(seed: int, truth: Truth, asked: Asked) -> None:
    table = asked(truth, Patching(), seed)
    assert set(table.follows) == {0.0, 1.0}
    found: dict[str, set[tuple[int, str]]] = {}
    for row in table[table.follows == 1].itertuples():
        found.setdefault(row.group, set()).add((row.layer, row.place))
    assert found == FOLLOWS[truth]
    assert ((table.gap_change > 1) == (table.follows == 1)).all()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("truth", FOLLOWS)
def test_layer_entries_alone_tell_nothing_of_marks_that_are_read_where_they_read(truth: Truth, asked: Asked) -> None:
    """The reason for places within a layer: at layer entries both models look alike."""
    table = asked(truth, Patching(), 0)
    assert not table[(table.group == "marks") & (table.place == "before")].follows.any()


def test_the_start_of_the_list_is_a_ceiling_and_no_finding(asked: Asked) -> None:
    table = asked("carry", Patching(), 0)
    assert [(row.group, row.layer, row.place) for row in table[table.ceiling].itertuples()] == [("list", 0, "before")]
