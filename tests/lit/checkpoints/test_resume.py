"""Which configurations may go on with a run."""

import pytest

from lightning_metatok.errors import UserError
from lightning_metatok.lit.checkpoints.resume import check_same_run

SAVED = {"config": {"model.optimizer.lr": 0.1, "model.d_model": 64, "data.batch_size": 8}, "world_size": 1}
MINE = {**SAVED["config"], "model.optimizer.lr": 0.2}  # type: ignore[dict-item]


def test_a_changed_key_is_refused_unless_it_or_its_pattern_is_allowed() -> None:
    with pytest.raises(UserError, match=r"model\.optimizer\.lr=0\.2 \(was 0\.1\): .*--allow_changed"):
        check_same_run(SAVED, MINE, {}, [])
    for allowed in ("model.optimizer.lr", "model.optimizer.*"):
        check_same_run(SAVED, MINE, {}, [allowed])


def test_an_allowed_key_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"allow_changed=model\.optimiser\.lr: .*did you mean 'model\.optimizer\.lr'"):
        check_same_run(SAVED, MINE, {}, ["model.optimiser.lr"])


def test_a_checkpoint_without_a_configuration_goes_on_under_any() -> None:
    check_same_run({}, MINE, {}, [])
