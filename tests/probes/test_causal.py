"""Causal probes find the path that a hand-made model is known to use, and no other."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from pandas import DataFrame

from lightning_metatok.errors import UserError
from lightning_metatok.model.interventions import Intervention
from lightning_metatok.probes import Probe, Subject
from lightning_metatok.probes.causal import Eviction, Knockout, Paths
from lightning_metatok.probes.patching import Patching
from lightning_metatok.probes.places import with_places
from lightning_metatok.probes.trials import LEAST, Trial, ask, run_trials
from tests.model.handmade import Kind
from tests.probes.conftest import ARMS, MakeSubject

Known = Callable[[Kind], Subject]


def accuracies(probe: Probe, subject: Subject) -> dict[str, float]:
    probe.check(subject)
    (finding,) = probe.run(subject)
    return dict(zip(finding.table.trial, finding.table.accuracy, strict=True))


def lost(accuracy: float) -> bool:
    assert accuracy < 0.4 or accuracy == 1, "right by luck, or all right"
    return accuracy < 0.4


def test_eviction_tells_a_cache_from_a_pointer(known: Known) -> None:
    cache, pointer = (accuracies(Eviction(windows=[1]), known(kind)) for kind in ("cache", "pointer"))
    for found in (cache, pointer):
        assert found["intact"] == 1
        assert lost(found["nothing"])
    assert not lost(cache["marks"])
    assert lost(cache["target"])
    assert not lost(cache["last_1"]), "the closing mark is the last token of the body"
    assert lost(pointer["marks"])
    assert not lost(pointer["target"])
    assert lost(pointer["last_1"])


def test_paths_tell_a_cache_from_a_pointer(known: Known) -> None:
    cache, pointer = (accuracies(Paths(), known(kind)) for kind in ("cache", "pointer"))
    for path, by_cache in {
        "question_target": False,
        "last_target": False,
        "question_marks": True,
        "question_target_marks": True,
        "last_marks": True,
        "marks_target": True,
        "marks_body": True,
    }.items():
        assert lost(cache[path]) == by_cache, path
        assert lost(pointer[path]) == (path in ("question_target", "last_target")), path
    for path in ("question_rest", "marks_rest", "target_marks"):
        assert not lost(cache[path])
        assert not lost(pointer[path])


def test_paths_say_in_which_layer(known: Known) -> None:
    subject = known("cache")
    assert not lost(accuracies(Paths(layers=[0]), subject)["question_marks"])
    assert lost(accuracies(Paths(layers=[1]), subject)["question_marks"])
    assert lost(accuracies(Paths(layers=[0]), subject)["marks_target"])
    assert not lost(accuracies(Paths(layers=[1]), subject)["marks_target"])


def test_knockouts_find_the_one_mark_that_holds_the_answer(known: Known) -> None:
    cache, pointer = (accuracies(Knockout(), known(kind)) for kind in ("cache", "pointer"))
    assert lost(cache["closing"])
    assert lost(cache["all_marks"])
    assert {name for name in cache if lost(cache[name])} == {"closing", "target_marks", "all_marks"}
    assert not any(lost(value) for value in pointer.values())


@pytest.mark.parametrize(
    ("kind", "follows"),
    [
        ("cache", {("list", 0), ("closing", 1), ("marks", 1)}),
        ("pointer", {("list", 0), ("list", 1)}),
        ("through", {("list", 0), ("last", 1)}),
    ],
)
def test_patching_finds_where_the_answer_is(kind: Kind, follows: set[tuple[str, int]], known: Known) -> None:
    (finding,) = Patching().run(known(kind))
    table = finding.table
    assert set(table.follows) == {0.0, 1.0}
    entering = table[table.place == "before"]
    assert {(row.group, row.layer) for row in entering.itertuples() if row.follows == 1} == follows
    for row in table.itertuples():
        assert (row.gap_change > 1) == (row.follows == 1)
        assert row.follows_low <= row.follows <= row.follows_high


@pytest.mark.parametrize(
    ("kind", "layers", "says"),
    [
        (
            "cache",
            None,
            "swapped at its best place, the list's own tokens take the answer along in 100 % of pairs (layer 0, values "
            "of self-attention), its marks in 100 % of pairs (layer 0, after self-attention); ceiling 100 %",
        ),
        (
            "cache",
            [1],
            "swapped at its best place, the list's own tokens take the answer along in 0 % of pairs (layer 1, before), "
            "its marks in 100 % of pairs (layer 1, before)",
        ),
        (
            "pointer",
            None,
            "swapped at its best place, the list's own tokens take the answer along in 100 % of pairs (layer 0, after "
            "self-attention), its marks in 0 % of pairs (layer 0, before); ceiling 100 %",
        ),
    ],
)
def test_what_follows_by_construction_is_a_ceiling(
    kind: Kind, layers: list[int] | None, says: str, known: Known
) -> None:
    """At the start the list's tokens are the other prompt: that is no place of the list."""
    (finding,) = Patching(layers=layers).run(known(kind))
    assert finding.says == says


def test_a_trial_that_changes_nothing_changes_nothing(random_subject: MakeSubject) -> None:
    table = run_trials(random_subject(), [Trial("nothing", "nothing", lambda p: Intervention())], "nothing")
    for column in ("accuracy_change", "logprob_change"):
        assert table.loc[1, [column, f"{column}_low", f"{column}_high"]].eq(0).all()


def test_the_answers_of_a_probe_are_those_of_the_module(random_subject: MakeSubject) -> None:
    subject = random_subject()
    for batch, _ in with_places(subject):
        nll_BT, right_BT = subject.module.answers(batch)
        outcome = ask(subject.model, batch)
        np.testing.assert_allclose(-outcome.logprob_n, nll_BT.sum(dim=1).detach().numpy(), rtol=1e-5)
        assert np.array_equal(outcome.right_n, right_BT.any(dim=1).numpy())  # one token an answer


@pytest.mark.one_in(3)
@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("probe", [Eviction(), Paths(), Knockout(), Patching()], ids=lambda probe: probe.name)
def test_every_arm_can_be_asked(arm: str, probe: Probe, random_subject: MakeSubject) -> None:
    subject = random_subject(arm)
    if arm == "plain" and probe.name == "knockout":
        assert "neither meta-tokens nor a second attention" in str(probe.cannot(subject))
        return
    assert probe.cannot(subject) is None
    probe.check(subject)
    (finding,) = probe.run(subject)
    assert isinstance(finding.table, DataFrame)
    assert finding.table.notna().all(axis=None)
    rows = set(finding.table["group" if probe.name == "patching" else "trial"])
    assert bool(rows & {"marks", "question_marks", "all_marks"}) == (arm != "plain")
    if arm == "plain":
        assert "there are no" in finding.says or "there are none" in finding.says


def test_a_probe_leaves_the_model_as_it_was(random_subject: MakeSubject) -> None:
    subject = random_subject()
    before = {name: value.clone() for name, value in subject.model.state_dict().items()}
    for probe in (Eviction(), Paths(), Knockout(), Patching()):
        probe.run(subject)
    assert all(torch.equal(value, before[name]) for name, value in subject.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())
    assert not subject.model.training


@pytest.mark.parametrize("placement", ["hint", "random"])
def test_places_of_marks_are_those_of_the_flags(placement: str, random_subject: MakeSubject) -> None:
    for batch, places in with_places(random_subject(placement=placement)):
        assert torch.equal(places.meta_BT, batch.meta_mask_BT)
        assert torch.equal(places.last_BT, batch.targets_BT >= 0)
        assert torch.equal(places.body_BT | places.question_BT, batch.document_ids_BT == 0)
        assert not (places.body_BT & places.question_BT).any()
        assert not (places.target_BT & ~places.body_BT).any()
        if placement == "hint":
            assert torch.equal(places.opening_BT | places.closing_BT, places.meta_BT)
            for row in range(len(batch.tokens_BT)):
                opening, closing = (int(m[row].nonzero()) for m in (places.opening_BT, places.closing_BT))
                inside = torch.arange(opening + 1, closing)
                assert torch.equal(places.target_BT[row].nonzero()[:, 0], inside)


def test_the_same_seed_gives_the_same_table(known: Known) -> None:
    tables: list[Any] = [Eviction().run(known("cache"))[0].table for _ in range(2)]
    assert tables[0].equals(tables[1])


TASKS: dict[str, dict[str, Any]] = {
    "segment_counting": {"n_lists": [2, 2], "list_length": [2, 3]},
    "copying": {"n_words": [12, 16]},
    "parity": {"n_bits": [6, 8]},
    "multi_query_recall": {"n_pairs": [4, 5]},
    "variable_tracking": {"n_chains": [2, 2]},
    "needle": {"n_hay": [40, 50]},
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", TASKS)
def test_every_task_with_segments_can_be_asked(name: str, random_subject: MakeSubject) -> None:
    task = {"task": name, "task_options": {"symbols": [64, 32, 32], **TASKS[name]}}
    subject = random_subject("meta", 30, vocab_size=160, task=task)
    for probe in (Eviction(windows=[4]), Patching(layers=[0])):
        assert probe.cannot(subject) is None
        probe.check(subject)
        (finding,) = probe.run(subject)
        assert finding.table.n.eq(30).all()


def test_a_task_without_segments_says_what_it_cannot_give(random_subject: MakeSubject) -> None:
    task = {"task": "addition", "task_options": {"n_digits": [2, 3]}}
    reason = str(Patching().cannot(random_subject("plain", 30, vocab_size=1024, task=task)))
    assert "data.task=addition has no segment" in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("probe", "arm", "expected"),
    [
        (Eviction(windows=[0]), "meta", "eviction.windows=[0]: expected different numbers of tokens, from 1"),
        (Eviction(windows=[4, -1]), "meta", "eviction.windows=[4, -1]: expected different numbers of tokens, from 1"),
        (Eviction(windows=[4, 4]), "meta", "eviction.windows=[4, 4]: expected different numbers of tokens, from 1"),
        (Paths(layers=[2]), "meta", "paths.layers=[2]: no layer 2; expected numbers from 0 to 1"),
        (Paths(layers=[-1]), "meta", "paths.layers=[-1]: no layer -1; expected numbers from 0 to 1"),
        (Paths(layers=[]), "meta", "paths.layers=[]: expected different numbers, one at least"),
        (Paths(layers=[0, 0]), "meta", "paths.layers=[0, 0]: expected different numbers, one at least"),
        (Knockout(layers=[2]), "meta", "knockout.layers=[2]: no layer 2; expected numbers from 0 to 1"),
        (Knockout(layers=[1, 1]), "meta", "knockout.layers=[1, 1]: expected different numbers, one at least"),
        (Knockout(layers=[0]), "meta in one layer", "knockout.layers=[0]: layer 0 has no second attention"),
        (Knockout(layers=[1]), "pause", "knockout.layers=[1]: layer 1 has no second attention"),
    ],
    ids=lambda value: value.name if isinstance(value, Probe) else str(value),
)
def test_windows_and_layers_that_cannot_be_asked_about_are_named(
    probe: Probe, arm: str, expected: str, random_subject: MakeSubject
) -> None:
    with pytest.raises(UserError) as refused:
        probe.check(random_subject(arm))
    assert str(refused.value) == f"probe.{expected}"


def test_windows_and_layers_at_their_limits_are_asked_about(random_subject: MakeSubject) -> None:
    subject = random_subject("meta in one layer")
    for probe in (Eviction(windows=[1, 2]), Eviction(windows=[]), Paths(layers=[0, 1]), Knockout(layers=[1])):
        probe.check(subject)
    (finding,) = Knockout().run(subject)
    assert {name for name in finding.table.trial if name.startswith("silent")} == {"silent", "silent_1"}
    few = random_subject("meta", n=LEAST - 1)
    for probe in (Eviction(), Paths(), Knockout()):
        with pytest.raises(
            UserError, match=rf"^--examples={LEAST - 1}: probe\.{probe.name} expected at least {LEAST} "
        ):
            probe.check(few)
