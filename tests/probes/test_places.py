"""Masks of the places in a prompt, where its question has a mark, too."""

import numpy as np
import pytest
import torch

from lightning_metatok.probes.places import flat_places, located
from lightning_metatok.tasks import build
from lightning_metatok.tasks.marks import marks_of_question


@pytest.mark.parametrize("placement", ["hint", "every", "after", "random"])
@pytest.mark.parametrize("mark", ["before_answer", "after_key"])
@pytest.mark.parametrize("name", ["list_recall", "variable_tracking", "multi_query_recall"])
def test_a_mark_of_the_question_belongs_to_the_question(name: str, mark: str, placement: str) -> None:
    examples = build(name, placement=placement, question_mark=mark).examples(40, 0)
    without = flat_places(build(name, placement=placement).examples(40, 0))
    ours, places = marks_of_question(examples), flat_places(examples)
    assert ours.sum() >= 40
    assert places["question_BT"][ours].all()
    for key, mask in without.items():  # all other tokens are what they are without it
        np.testing.assert_array_equal(places[key][~ours], mask, err_msg=key)
    for key in ("opening_BT", "closing_BT", "target_BT", "body_BT"):
        assert not places[key][ours].any()
    ((_, of_batch),) = located(examples, 40, torch.device("cpu"))
    marks_of_body = (of_batch.opening_BT | of_batch.closing_BT | of_batch.other_meta_BT).sum()
    assert int(marks_of_body) == int(of_batch.meta_BT.sum()) - int(ours.sum())
