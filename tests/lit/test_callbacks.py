"""Callbacks measure what they say, and leave the model as it was."""

import json
import math
import platform
import re
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_metatok.event_file import exactly
from lightning_metatok.lit import Trainer
from lightning_metatok.lit.ablations import PositionAblation
from lightning_metatok.lit.ablations.by_length import TAG, write_by_length
from lightning_metatok.lit.ablations.figures import readings_table
from lightning_metatok.lit.ablations.readings import Dropped, Kept, ReadingLoss
from lightning_metatok.lit.callbacks import BigramBaseline, HeldOutText, RunCheckpoint, Throughput
from lightning_metatok.lit.callbacks.dashboard import Dashboard, flatten
from lightning_metatok.lit.callbacks.progress import TokenProgress, short
from lightning_metatok.lit.checkpoints.folder import checkpoints
from lightning_metatok.lit.metrics import SourceTokenLoss, bytes_per_target

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning's advice about toy runs


def _trainer(tmp_path: Path, *callbacks: lightning.Callback, **options: Any) -> lightning.Trainer:
    usual: dict[str, Any] = {
        "accelerator": "cpu",
        "max_steps": 4,
        "log_every_n_steps": 2,
        "val_check_interval": 4,
        "use_distributed_sampler": False,
        "callbacks": list(callbacks),
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
    }
    return lightning.Trainer(**{**usual, **options})


def test_ablation_measures_kept_and_dropped_at_every_length(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    data, model = make_data(meta_length="within"), make_model()
    ablation = PositionAblation(multiples=[1, 2], windows=2)
    _trainer(tmp_path, ablation).fit(model, datamodule=data)
    assert [(c.multiple, c.reading, c.length) for c in ablation.losses] == [
        (1, "kept", 40),
        (1, "dropped", 40),
        (2, "kept", 80),
        (2, "dropped", 80),
    ]
    by_hand = SourceTokenLoss()
    model.eval()
    with torch.no_grad():
        for batch in data.context_batches(2, windows=2, largest=2):
            by_hand.update(model.nll(batch, drop_positions="both"), batch.targets_BT, model.bytes_V)
    assert ablation.losses[-1].nats == pytest.approx(by_hand.compute()["nats"].item(), rel=1e-6)
    assert ablation.losses[0].nats != ablation.losses[1].nats


def test_a_model_trained_without_positions_at_meta_tokens_is_read_both_ways(
    tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    data, model = make_data(), make_model(drop_positions="both")
    ablation = PositionAblation(multiples=[1], windows=2)
    _trainer(tmp_path, ablation).fit(model, datamodule=data)
    kept, dropped = ablation.losses
    as_trained = SourceTokenLoss()
    model.eval()
    with torch.no_grad():
        for batch in data.context_batches(1, windows=2, largest=1):
            as_trained.update(model.nll(batch), batch.targets_BT, model.bytes_V)
    assert dropped.nats == pytest.approx(as_trained.compute()["nats"].item(), rel=1e-6)
    assert kept.nats != dropped.nats


def test_ablation_without_meta_tokens_has_nothing_to_drop(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    ablation = PositionAblation(multiples=[1], windows=2)
    _trainer(tmp_path, ablation).fit(make_model(mechanism="none"), datamodule=make_data(meta_fraction=0.0))
    assert [cell.reading for cell in ablation.losses] == ["kept"]


def test_ablation_leaves_out_lengths_beyond_a_learned_table_and_says_so(
    tmp_path: Path, make_data: Any, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    ablation = PositionAblation(multiples=[1, 2], windows=2)
    _trainer(tmp_path, ablation).fit(
        make_model(position="learned", max_positions=40), datamodule=make_data(meta_length="within")
    )
    assert {cell.multiple for cell in ablation.losses} == {1}
    assert capsys.readouterr().out.count("context 80 is left out: model.max_positions=40") == 1


def test_throughput_counts_tokens_with_and_without_meta_tokens(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    speed = Throughput(window=2)
    trainer = _trainer(tmp_path, speed, accumulate_grad_batches=2)
    trainer.fit(make_model(), datamodule=make_data(meta_length="within"))
    assert speed.tokens == 4 * 2 * 4 * 40
    assert speed.source_tokens == 4 * 2 * 4 * 36
    assert speed.tokens_per_s > 0
    assert trainer.callback_metrics["throughput/tokens"] == speed.tokens
    assert trainer.callback_metrics["throughput/peak_memory_gb"] > 0.01
    assert {**speed.state_dict(), "window": {}} == {"tokens": 1280, "source_tokens": 1152, "window": {}}


class OnAKnownDevice(Throughput):
    """As on a GPU of 10 GFLOP/s."""

    def peak_flop_per_s(self, trainer: lightning.Trainer) -> float | None:
        return 1e10


def test_the_share_of_the_peak_is_logged_and_shown_where_the_peak_is_known(
    tmp_path: Path, make_data: Any, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = {}
    for name, speed in (("known", OnAKnownDevice(window=2)), ("cpu", Throughput(window=2))):
        trainer = _trainer(tmp_path / name, speed, TokenProgress(every_s=0.0), max_steps=6, enable_progress_bar=True)
        trainer.fit(make_model(), datamodule=make_data())
        metrics, shown[name] = trainer.callback_metrics, capsys.readouterr().err
        if name == "known":
            tflop = float(metrics["throughput/model_tflop_per_s"])
            assert float(metrics["throughput/mfu"]) == pytest.approx(tflop * 1e12 / 1e10)
        else:
            assert "throughput/mfu" not in metrics
    assert re.search(r"tok/s  MFU \d+\.\d%  train ", shown["known"])
    assert "MFU" not in shown["cpu"]


def test_bigram_baseline_scores_the_validation_text(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    data, bigram = make_data(), BigramBaseline()
    _trainer(tmp_path, bigram).fit(make_model(), datamodule=data)
    # Sentences repeat, so a bigram model is far better than a uniform guess and worse than certainty.
    assert 0.05 < bigram.values["loss/bigram"] < 3.0
    assert 0 < bigram.values["bits_per_byte/bigram"] < 4.0


LOSSES = [
    ReadingLoss(multiple, reading, 64 * multiple, 2.0 + multiple / 10, (2.0 + multiple / 10) / math.log(2) / 2.44)
    for multiple in (1, 2)
    for reading in ("kept", "dropped")
]


def test_kept_and_dropped_are_two_runs_to_tensorboard_by_context_length(tmp_path: Path) -> None:
    for _ in range(2):  # a run that goes on and ends again does not show its lengths twice
        write_by_length(tmp_path, LOSSES)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["positions dropped", "positions kept"]
    for folder in tmp_path.iterdir():
        events = EventAccumulator(str(folder))
        events.Reload()
        assert [(e.step, round(e.value, 6)) for e in events.Scalars(TAG)] == [(64, 2.1), (128, 2.2)]


def test_the_row_of_the_hparams_tab_begins_with_arm_and_seed(tmp_path: Path) -> None:
    (tmp_path / "arm.json").write_text('{"arm": "meta (shared)", "seed": 3}')
    values = {"model": {"d_model": 16}, "seed_everything": 3, "trainer": {"max_steps": 4, "devices": 1}}
    shown = Dashboard("", values)._shown(tmp_path)
    assert list(shown)[:2] == ["arm", "seed"]
    assert (shown["arm"], shown["seed"], shown["model.d_model"]) == ("meta (shared)", 3, 16)
    assert "trainer.devices" not in shown
    assert next(iter(Dashboard("", values)._shown(None))) == "seed"  # no run folder, no card


def test_the_table_of_the_ablation_says_that_its_text_is_other_text() -> None:
    caption = str(readings_table([Kept(), Dropped()], LOSSES).caption)
    assert caption.startswith(
        "Text of 2.440 bytes a target, other text than the validation's: compare within this table."
    )
    assert caption.endswith("is kept: positions kept 2x or more, dropped at meta 2x or more.")
    # The validation's: nats = bits per byte * ln 2 * bytes a target.
    assert bytes_per_target(3.0, 3.0 / math.log(2) / 2.562) == pytest.approx(2.562)


def test_the_end_of_a_fit_measures_test_text_as_the_verb_test_does(
    tmp_path: Path, make_data: Any, make_model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = make_data(), make_model()
    _trainer(tmp_path, HeldOutText()).fit(model, datamodule=data)
    printed = capsys.readouterr().out
    (result,) = _trainer(tmp_path).test(model, datamodule=data, verbose=False)
    assert f"test loss {result['loss/test']:.4f} nats" in printed
    (validated,) = _trainer(tmp_path).validate(model, datamodule=data, verbose=False)
    assert validated["loss/val"] != result["loss/test"]
    _trainer(tmp_path, HeldOutText()).fit(make_model(), datamodule=make_data(test_fraction=0.0))
    assert "test loss" not in capsys.readouterr().out


def test_contexts_of_the_verb_test_hold_test_text(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    data, model = make_data(), make_model()
    ablation = PositionAblation(multiples=[1], windows=2)
    found = {}
    for verb in ("validate", "test"):
        getattr(_trainer(tmp_path, ablation), verb)(model, datamodule=data, verbose=False)
        found[verb] = ablation.losses[0].nats
    assert found["validate"] != found["test"]


def test_flags_and_lists_become_text_for_the_hparams_tab() -> None:
    nested = {"model": {"bias": False, "layers": [1, 2], "lr": 0.1, "none": None}, "seed": 3}
    assert flatten(nested) == {"model.bias": "False", "model.layers": "[1, 2]", "model.lr": 0.1, "seed": 3}


def test_a_chart_pattern_matches_its_tag_only() -> None:
    import re

    assert re.match(exactly("loss/val"), "loss/val")
    assert not re.match(exactly("loss/val"), "loss/val_mean")


@pytest.mark.parametrize(("count", "text"), [(12, "12"), (1234, "1.23k"), (4_400_000, "4.4M"), (98e9, "98G")])
def test_counts_are_short(count: float, text: str) -> None:
    assert short(count) == text


def test_the_last_checkpoint_is_the_last_even_when_the_loss_got_worse(
    tmp_path: Path, make_data: Any, make_model: Any
) -> None:
    torch.manual_seed(0)  # else the tests before this one decide whether it diverges
    model = make_model(optimizer={"lr": 1.0, "min_lr": 1.0, "warmup_steps": 6, "decay_steps": 1})  # it diverges
    trainer = Trainer(
        precision="32-true",
        accelerator="cpu",
        max_steps=6,
        val_check_interval=2,
        callbacks=[RunCheckpoint(keep_last=1)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=make_data())
    newest, other = checkpoints(tmp_path / "checkpoints")
    assert (tmp_path / "checkpoints/last.ckpt").resolve() == newest
    best, last = (torch.load(path, weights_only=True) for path in (other, newest))
    assert last["global_step"] == 6
    assert best["global_step"] < 6


def test_a_run_says_what_it_was_made_with(tmp_path: Path, make_data: Any, make_model: Any) -> None:
    from lightning_metatok.lit.callbacks import Environment
    from lightning_metatok.lit.run.loggers import run_loggers

    trainer = lightning.Trainer(
        accelerator="cpu", max_steps=1, logger=run_loggers(tmp_path), callbacks=[Environment()],
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=False,
        use_distributed_sampler=False, limit_val_batches=0, num_sanity_val_steps=0, log_every_n_steps=1,
    )  # fmt: skip
    trainer.fit(make_model(), datamodule=make_data())
    said = json.loads((tmp_path / "environment.json").read_text())
    assert said["PyTorch"] == torch.__version__
    assert said["processes"] == "1"
    assert "CPU" in said["processor"]
    assert platform.node() not in json.dumps(said)
