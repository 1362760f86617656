"""Readings change the meta-tokens of a text and nothing else; whoever shows them takes whatever readings there are."""

from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from rich.console import Console

from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit.ablations import PositionAblation
from lightning_metatok.lit.ablations.readings import READINGS, Dropped, Reading, shuffled
from lightning_metatok.lit.callbacks.figures import run_figure
from lightning_metatok.lit.metrics import SourceTokenLoss
from lightning_metatok.model.positions import FAMILIES

ALL = ["kept", "dropped", "shuffled"]


class Reversed(Reading):
    """One from outside: positions of meta-tokens in reverse order."""

    name, label, column = "reversed", "positions reversed", "reversed"
    colour, marker = "black", "x"

    def change(self, batch: Batch, where: str) -> tuple[Batch, str]:
        """Turn them."""
        ids_BT = batch.position_ids_BT.clone()
        for ids_T, meta_T in zip(ids_BT, batch.meta_mask_BT, strict=True):
            ids_T[meta_T] = ids_T[meta_T].flip(0)
        fields = {**vars(batch), "position_ids_BT": ids_BT}
        return Batch(**fields), "none"


def fit(tmp_path: Path, ablation: PositionAblation, model: Any, data: Any) -> None:
    """Train for two steps, with a validation at the end."""
    lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        val_check_interval=2,
        use_distributed_sampler=False,
        callbacks=[ablation],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    ).fit(model, datamodule=data)


pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs


def batches(make_data: Any, multiple: int = 2) -> list[Batch]:
    """Text of `multiple` times the trained length, with many meta-tokens."""
    return list(make_data(meta_fraction=0.25).context_batches(multiple, windows=4, largest=2))


def test_shuffling_permutes_the_positions_of_a_rows_meta_tokens_and_touches_nothing_else(make_data: Any) -> None:
    moved = 0
    for batch in batches(make_data):
        before = batch.position_ids_BT.clone()
        after = READINGS["shuffled"]().change(batch, "both")[0]
        assert torch.equal(batch.position_ids_BT, before)
        for name in ("tokens_BT", "targets_BT", "meta_mask_BT", "document_ids_BT"):
            assert getattr(after, name) is getattr(batch, name)
        for ids_T, was_T, meta_T in zip(after.position_ids_BT, before, batch.meta_mask_BT, strict=True):
            assert torch.equal(ids_T[~meta_T], was_T[~meta_T])
            assert torch.equal(ids_T[meta_T].sort().values, was_T[meta_T].sort().values)
            moved += int((ids_T != was_T).sum())
    assert moved > 0


def test_a_rows_permutation_follows_from_its_tokens_alone(make_data: Any) -> None:
    batch = batches(make_data)[0]
    whole = shuffled(batch)
    assert torch.equal(whole, shuffled(batch))
    for row in range(len(whole)):
        alone = Batch(**{name: tensor[row : row + 1] for name, tensor in vars(batch).items()})
        assert torch.equal(shuffled(alone)[0], whole[row])
    orders = {tuple((ids_T[meta_T] * 1.0).argsort().tolist()) for ids_T, meta_T in zip(whole, batch.meta_mask_BT)}  # noqa: B905
    assert len(orders) == len(whole)  # other text, another order


def test_every_reading_is_measured_in_its_order_and_as_it_says(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    data, model = make_data(meta_fraction=0.25), make_model()
    ablation = PositionAblation(multiples=[1, 2], windows=2, readings=ALL)
    fit(tmp_path, ablation, model, data)
    assert [loss.tag for loss in ablation.losses] == [f"ablation/{name}_{m}x" for m in (1, 2) for name in ALL]
    by_hand = SourceTokenLoss()
    model.eval()
    with torch.no_grad():
        for batch in data.context_batches(2, windows=2, largest=2):
            moved = Batch(**{**vars(batch), "position_ids_BT": shuffled(batch)})
            by_hand.update(model.nll(moved, drop_positions="none"), batch.targets_BT, model.bytes_V)
    assert ablation.losses[-1].nats == pytest.approx(by_hand.compute()["nats"].item(), rel=1e-6)
    assert len({loss.nats for loss in ablation.losses[:3]}) == 3


@pytest.mark.one_in(3)
@pytest.mark.parametrize("position", [name for name, family in FAMILIES.items() if not family.needs_task_ids])
def test_every_encoding_reads_shuffled_positions(position: str, make_data: Any, make_model: Any) -> None:
    """Which may stand behind the query that reads them: a distance may be negative."""
    model = make_model(position=position, max_positions=128).eval()
    batch = batches(make_data)[0]
    read, drop = READINGS["shuffled"]().change(batch, "both")
    with torch.no_grad():
        assert torch.isfinite(model.nll(read, drop_positions=drop)).all()


def test_one_from_outside_is_measured_drawn_and_tabled_beside_the_others(
    tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    ablation = PositionAblation(multiples=[1], windows=2, readings=["dropped", f"{__name__}.Reversed"])
    assert ablation.charts() == {
        "positions at meta-tokens": {
            "dropped and reversed, nats; step: context length in tokens": [
                "Margin",
                ["by context length/nats per source token"] * 3,  # of a run a reading
            ]
        }
    }
    assert ablation.panels() == []
    fit(tmp_path, ablation, make_model(), make_data(meta_fraction=0.25))
    dropped, turned = ablation.losses
    assert (dropped.reading, turned.reading) == ("dropped", "reversed")
    console = Console(width=200, record=True, quiet=False, file=(tmp_path / "out").open("w"))
    ablation.closing(console)
    text = console.export_text()
    assert "reversed - dropped" in text
    assert f"{turned.nats - dropped.nats:+.4f} nats" in text
    figure = run_figure([], ablation.panels())
    labels = [line.get_label() for line in figure.axes[1].get_lines()]
    assert labels == [Dropped.label, Reversed.label]


def test_text_without_meta_tokens_is_read_one_way(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    ablation = PositionAblation(multiples=[1], windows=2, readings=["shuffled", "kept"])
    fit(tmp_path, ablation, make_model(mechanism="none"), make_data(meta_fraction=0.0))
    assert [loss.reading for loss in ablation.losses] == ["shuffled"]
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    ablation.closing(console)
    assert "no meta-tokens" in console.export_text()


@pytest.mark.parametrize(("drop_positions", "trained"), [("none", "kept"), ("both", "dropped")])
def test_a_run_says_which_readings_it_has_and_in_which_it_was_trained(
    drop_positions: str, trained: str, make_model: Any
) -> None:
    model = make_model(drop_positions=drop_positions)
    found = PositionAblation(readings=["shuffled", "dropped", "kept"]).facts(model.config)
    assert found == {"readings": ["shuffled", "dropped", "kept"], "read_as_trained": trained}
    alone = PositionAblation(readings=["shuffled"]).facts(model.config)
    assert alone["read_as_trained"] == "shuffled"


@pytest.mark.parametrize(
    ("readings", "said"),
    [
        (["kept", "shuffle"], "ablation.readings='shuffle': expected one of kept, dropped, shuffled; did you mean"),
        ([], r"ablation.readings=\[\]: expected at least one of kept, dropped, shuffled, each once"),
        (["kept", "kept"], r"ablation.readings=\['kept', 'kept'\]: expected at least one of"),
        ([f"{__name__}.Path"], "expected a class that derives from lightning_metatok.lit.ablations.readings.Reading"),
        (["no_such_lab.Reading"], "no_such_lab cannot be imported"),
    ],
)
def test_a_wrong_reading_is_refused_in_one_line(readings: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        PositionAblation(readings=readings)
    assert "\n" not in str(error.value)
