"""Probes of the two theorems: what they measure on small models, and what they refuse."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM, TaskDataModule
from lightning_metatok.probes.base import Subject
from lightning_metatok.probes.rate_distortion import LAST_META, LAST_SOURCE, MEAN_META, RateDistortion
from lightning_metatok.probes.sharpening import Sharpening


def make(folder: Path, n: int = 40, placement: str = "every", std: float = 0.3, **options: Any) -> Subject:
    """A small model with random weights, and prompts of a list recall."""
    torch.manual_seed(0)
    module = MetaTokenLM(n_layers=2, n_heads=2, d_model=16, vocab_size=64, **options)
    with torch.no_grad():
        for parameter in module.model.parameters():
            if parameter.dim() == 2:
                torch.nn.init.normal_(parameter, std=std)
    sizes = {"symbols": [8, 8, 16], "n_lists": [2, 2], "list_length": [2, 3]}
    data = TaskDataModule(
        "list_recall", sizes, placement, validation_examples=8, cache_dir=str(folder), test_examples=8
    )
    data.setup("validate")
    examples = data.evaluation_examples(1.0, n)
    batches = [examples.batch(np.arange(i, min(i + 16, n))) for i in range(0, n, 16)]
    return Subject(module.eval(), data, batches, examples, torch.device("cpu"), 0, n)


def test_sharpening_measures_rows_with_intervals_and_nulls(tmp_path: Path) -> None:
    (finding,) = Sharpening(queries=8).run(make(tmp_path))
    table = finding.table
    assert set(table.model) == {"trained", "untrained"}
    assert set(table["keys"]) == {"meta", "random ordinary"}
    assert set(table["layer"]) == {0, 1}
    assert set(table["head"]) == {-1, 0, 1}
    assert (table.low <= table["mean"] + 1e-9).all()
    assert (table["mean"] <= table.high + 1e-9).all()
    assert table[table.measure == "condition"]["mean"].between(0, 1).all()
    assert (table.n_prompts == 40).all()
    whole = table[(table["head"] == -1) & (table.model == "trained") & (table["keys"] == "meta")]
    by_measure = whole.groupby("measure")["mean"].mean()
    assert abs(by_measure["log_odds"]) > 1e-3
    assert abs(by_measure["fall_dropped"]) > 1e-3
    again = Sharpening(queries=8).run(make(tmp_path))[0].table
    assert again.equals(table), "the same seed, the same rows"


def test_a_model_that_is_blind_to_marks_has_no_boost(tmp_path: Path) -> None:
    """With the embedding of the mark at 0, zeroing it changes nothing, and every difference is 0."""
    subject = make(tmp_path)
    with torch.no_grad():
        subject.model.embedding.weight[subject.data.tokenizer.meta_id] = 0
    table = Sharpening(queries=4).run(subject)[0].table
    table = table[table.model == "trained"]
    for measure in ("log_odds", "logit", "fall_zeroed", "fall_boost", "largest_logit"):
        assert table[table.measure == measure]["mean"].abs().max() < 1e-5, measure


def test_probes_refuse_what_they_cannot_answer(tmp_path: Path) -> None:
    subject, plain = make(tmp_path), make(tmp_path, placement="none")
    for probe, message in (
        (Sharpening(layers=[2]), r"probe.sharpening.layers=\[2\]: no layer 2"),
        (Sharpening(heads=[5]), r"probe.sharpening.heads=\[5\]: no head 5"),
        (Sharpening(queries=0), "probe.sharpening.queries=0"),
        (RateDistortion(layers=[7]), "no layer 7"),
        (RateDistortion(), "--examples=40: probe.rate_distortion expected at least 150"),
    ):
        with pytest.raises(UserError, match=message):
            probe.check(subject)
    with pytest.raises(UserError, match="expected at least 30"):
        Sharpening().check(make(tmp_path, n=10))
    assert "no meta-tokens" in str(Sharpening().cannot(plain))
    assert RateDistortion().cannot(plain) is None


@pytest.mark.slow
def test_rate_distortion_draws_a_curve_for_every_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lightning_metatok.probes.rate_distortion as module

    short = module.rate_distortion_curve
    monkeypatch.setattr(
        module,
        "rate_distortion_curve",
        lambda x, y, **options: short(x, y, betas=[0.03, 0.3, 2], max_steps=80, **options),
    )
    table = RateDistortion(width=4).run(make(tmp_path, n=160))[0].table
    assert set(table.place) == {LAST_META, LAST_SOURCE, MEAN_META}
    curves = table[table["kind"] == "curve"]
    assert (curves.low <= curves.high).all()
    assert (table.label_entropy_nats <= table.uniform_nats).all()
    assert np.allclose(table.rate_bits * np.log(2), table.rate_nats, equal_nan=True)
    left = table[table["kind"] == "regression"]
    assert len(left) == 3
    assert (left.low <= left.distortion_nats).all()
    assert (left.distortion_nats <= left.high).all()
    assert set(RateDistortion(width=4).run(make(tmp_path, n=160, placement="none"))[0].table.place) == {LAST_SOURCE}
    following = RateDistortion(width=4, target="next").run(make(tmp_path, n=160))[0]
    assert set(following.table.place) == {LAST_META, LAST_SOURCE, MEAN_META}
    assert "next source token" in following.says


@pytest.mark.parametrize("placement", ["every", "none"])
def test_the_next_source_token_stands_right_behind_where_it_is_asked_for(tmp_path: Path, placement: str) -> None:
    from lightning_metatok.probes.rate_distortion import _asked_next

    subject = make(tmp_path, placement=placement)
    batch = subject.batches[0]
    asked_B, label_B = _asked_next(batch, subject.has_meta_tokens, torch.Generator().manual_seed(0))
    for row, (place, label) in enumerate(zip(asked_B.tolist(), label_B.tolist(), strict=True)):
        assert bool(batch.meta_mask_BT[row, place]) == (placement == "every")
        assert not batch.meta_mask_BT[row, place + 1]
        assert int(batch.tokens_BT[row, place + 1]) == label
        assert batch.document_ids_BT[row, place + 1] >= 0
    assert len(set(asked_B.tolist())) > 1, "drawn, not always the same"
