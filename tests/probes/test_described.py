"""A YAML's trials do what the probes written in Python do, and a mistake in one is one line."""

from typing import Any

import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.model.interventions import Intervention, intervened
from lightning_metatok.probes.causal import Knockout, Paths
from lightning_metatok.probes.described import PLACES, Described
from lightning_metatok.probes.places import with_places
from tests.probes.conftest import MakeSubject
from tests.probes.test_causal import Known, lost

COLUMNS = ["accuracy", "logprob", "logprob_change"]


def test_it_is_what_paths_and_knockouts_are(random_subject: MakeSubject) -> None:
    subject = random_subject("meta")
    trials: list[dict[str, Any]] = [
        {"name": "path", "block": {"queries": "question", "keys": "target"}},
        {"name": "unseen", "block": {"keys": ["opening", "closing"]}},
        {"name": "silent", "silence": "all"},
        {"name": "silent_1", "silence": [1]},
    ]
    (found,) = Described(trials).run(subject)
    mine = found.table.set_index("trial")[COLUMNS]
    paths = Paths().run(subject)[0].table.set_index("trial")[COLUMNS]
    knockouts = Knockout().run(subject)[0].table.set_index("trial")[COLUMNS]
    for name, same in {"path": paths.loc["question_target"], "unseen": knockouts.loc["target_marks"]}.items():
        assert mine.loc[name].equals(same.rename(name)), name
    assert mine.loc["silent"].equals(knockouts.loc["silent"])
    assert mine.loc["silent_1"].equals(knockouts.loc["silent_1"])


def test_emptied_marks_cost_what_they_hold(known: Known) -> None:
    empty = [{"name": "empty", "patch": {"at": ["opening", "closing"], "layer": 1}}]
    cache, pointer = (Described(empty).run(known(kind))[0].table.accuracy.iloc[1] for kind in ("cache", "pointer"))
    assert lost(cache)
    assert not lost(pointer)


@pytest.mark.parametrize("states", ["zeros", "mean"])
def test_a_patch_is_at_its_rows_and_layer_alone(states: str, random_subject: MakeSubject) -> None:
    subject = random_subject("meta")
    probe = Described([{"patch": {"at": "closing", "layer": 1, "states": states}}])
    (trial,) = probe.read(subject)
    batch, places = next(with_places(subject))
    own, patched = [], []
    for seen, change in ((own, Intervention()), (patched, trial.change(places))):
        with intervened(subject.model, change):  # hooks after its own see what it puts there
            look = [
                b.register_forward_pre_hook(lambda m, given, to=seen: to.append(given[0])) for b in subject.model.blocks
            ]
            subject.forward(batch)
            for hook in look:
                hook.remove()
    assert own[0].equal(patched[0]), "layer 0 reads what it always does"
    assert (own[1] != patched[1]).any(dim=-1).equal(places.closing_BT)
    if states == "zeros":
        assert not patched[1][places.closing_BT].any()
    else:
        (row, at) = places.closing_BT.nonzero()[0].tolist()
        others_KD = own[1][row][~places.closing_BT[row]]
        torch.testing.assert_close(patched[1][row, at], others_KD.mean(dim=0))


def test_the_mean_is_of_real_tokens_alone(random_subject: MakeSubject) -> None:
    subject = random_subject("meta")
    (trial,) = Described([{"patch": {"at": "closing", "layer": 0, "states": "mean"}}]).read(subject)
    batch, places = next(with_places(subject))
    real_BT = batch.document_ids_BT == 0
    assert not real_BT.all(), "prompts of several lengths"
    patch = trial.change(places).patches[0]
    one_BTD = torch.randn(*real_BT.shape, 4)
    other_BTD = torch.where(real_BT.unsqueeze(-1), one_BTD, 100.0)
    assert patch.put(one_BTD)[places.closing_BT].equal(patch.put(other_BTD)[places.closing_BT])


@pytest.mark.parametrize(
    ("arm", "silence", "layer"), [("plain", "all", 0), ("meta in one layer", [0], 0), ("meta in one layer", [1, 0], 0)]
)
def test_layers_that_nothing_is_added_to_cannot_be_silenced(
    arm: str, silence: Any, layer: int, random_subject: MakeSubject
) -> None:
    with pytest.raises(UserError, match=f"the mechanism adds nothing to layer {layer}; expected one that it adds to"):
        Described([{"silence": silence}]).check(random_subject(arm))


def test_all_layers_are_those_that_something_is_added_to(random_subject: MakeSubject) -> None:
    subject = random_subject("meta in one layer")
    (trial,) = Described([{"silence": "all"}]).read(subject)
    _, places = next(with_places(subject))
    assert trial.change(places).silent == [1]


@pytest.mark.parametrize("place", PLACES)
def test_every_place_can_be_blocked(place: str, random_subject: MakeSubject) -> None:
    (finding,) = Described([{"block": {"keys": place}}]).run(random_subject("meta"))
    assert len(finding.table) == 2


@pytest.mark.parametrize(
    ("trials", "said"),
    [
        ([], "trials=[]: expected a list with one trial at least"),
        ([{"name": "a"}], "expected one of block, silence, patch, and only one"),
        ([{"blok": {}}], "trials[0].blok: expected name and one of block, silence, patch; did you mean 'block'?"),
        ([{"block": {"keys": "targt"}}], "trials[0].block.keys=targt: expected one of all, "),
        ([{"block": {"key": "target"}}], "trials[0].block.key: expected queries, keys, layers; did you mean 'keys'?"),
        ([{"block": {"keys": "target", "layers": [9]}}], "trials[0].block.layers=[9]: expected layers from 0 to "),
        ([{"block": 3}], "trials[0].block=3: expected queries, keys, layers"),
        ([{"block": {"keys": {"at": "target"}}}], "trials[0].block.keys={'at': 'target'}: expected one of all, "),
        ([{"block": {"keys": [["target"]]}}], "trials[0].block.keys=['target']: expected one of all, "),
        ([{"silence": None}], "trials[0].silence=null: expected layers from 0 to 1, or all"),
        ([{"silence": "none"}], "trials[0].silence=none: expected layers from 0 to "),
        ([{"patch": {"at": "closing"}}], "trials[0].patch.layer=None: expected a layer from 0 to "),
        ([{"patch": {"at": "closing", "layer": 0, "states": "zero"}}], "states=zero: expected one of zeros, mean"),
        ([{"silence": "all"}, {"silence": "all"}], "trials[1].name=silence all: expected different names"),
    ],
)
def test_a_mistake_is_one_line(trials: list[dict[str, Any]], said: str, random_subject: MakeSubject) -> None:
    with pytest.raises(UserError) as raised:
        Described(trials).check(random_subject("meta"))
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)
