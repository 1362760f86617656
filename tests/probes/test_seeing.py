"""Probes that look: they run on every arm, measure what they say, and leave no trace."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from lightning_metatok.errors import UserError
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.probes import PROBES, Probe, Subject
from lightning_metatok.probes.attention import Attention
from lightning_metatok.probes.cosine import Cosine
from lightning_metatok.probes.inside import inside, preceding
from lightning_metatok.probes.lens import Lens
from lightning_metatok.probes.readout import Readout
from lightning_metatok.probes.subject import held_out
from lightning_metatok.probes.updates import Updates, attributed
from tests.lit.conftest import corpus, make_data  # noqa: F401  (fixtures)
from tests.probes.conftest import MakeSubject

QUICK: list[Probe] = [Attention(furthest=6), Updates(), Cosine(furthest=3), Lens(steps=3), Readout(furthest=2)]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("arm", ["meta in one layer", "matched", "plain", "post-norm"])
@pytest.mark.parametrize("probe", QUICK, ids=lambda probe: probe.name)
def test_every_arm_can_be_seen(arm: str, probe: Probe, random_subject: MakeSubject) -> None:
    subject = random_subject(arm, 100)
    if arm == "plain" and probe.name == "cosine":
        assert "no meta-tokens" in str(probe.cannot(subject))
        return
    assert probe.cannot(subject) is None
    probe.check(subject)
    (finding,) = probe.run(subject)
    assert finding.name == probe.name
    assert isinstance(finding.figure, Figure)
    assert finding.says
    measured = finding.table.select_dtypes("number").drop(columns=["uniform", "low", "high"], errors="ignore")
    assert np.isfinite(measured.to_numpy(dtype=float)).all()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in subject.model.modules())
    assert all(parameter.requires_grad for parameter in subject.model.parameters())
    assert all(parameter.grad is None for parameter in subject.model.parameters())


def test_attribution_adds_up_to_the_models_logit(random_subject: MakeSubject) -> None:
    """float32, seven parts of a logit: 1e-4."""
    subject = random_subject("matched")
    for batch, recording in inside(subject, "test"):
        answers_BT = batch.targets_BT >= 0
        parts_PK = attributed(subject, recording, answers_BT, batch.targets_BT)
        with torch.no_grad():
            logits_KV = subject.forward(batch)[answers_BT]
        wanted = logits_KV.gather(1, batch.targets_BT[answers_BT][:, None])[:, 0] - logits_KV.mean(dim=1)
        torch.testing.assert_close(parts_PK.sum(dim=0), wanted, rtol=1e-4, atol=1e-4)


def test_cosine_of_layer_0_is_that_of_embeddings(random_subject: MakeSubject) -> None:
    subject = random_subject("meta")
    table = Cosine(furthest=1).run(subject)[0].table
    weight = subject.model.embedding.weight.detach()
    cosines = []
    for batch in subject.batches:
        for row, places in enumerate(batch.meta_mask_BT):
            for t in torch.nonzero(places)[:, 0].tolist():
                before = next((s for s in range(t - 1, -1, -1) if not places[s]), None)
                if before is not None:
                    a, b = weight[batch.tokens_BT[row, t]], weight[batch.tokens_BT[row, before]]
                    cosines.append(float(torch.cosine_similarity(a, b, dim=0)))
    for kind in ("state", "embedding"):
        row = table[(table.kind == kind) & (table.layer == 0)].iloc[0]
        assert row["mean"] == pytest.approx(np.mean(cosines), abs=1e-5)
        assert row.n == len(cosines)


def test_masses_of_attention_add_up_to_one(random_subject: MakeSubject) -> None:
    table = Attention().run(random_subject("meta"))[0].table
    mass = table[table.measure == "mass"]
    for column in ("mean", "uniform"):
        total = mass.groupby(["layer", "attention", "query"])[column].sum()
        np.testing.assert_allclose(total, 1, atol=1e-5)
    assert set(mass[mass.attention == "second attention"]["query"]) == {"mark"}


def test_heads_are_averaged_over_those_chosen(random_subject: MakeSubject) -> None:
    subject = random_subject("meta")
    every, first, second = (
        Attention(heads=heads).run(subject)[0].table["mean"].to_numpy() for heads in (None, [0], [1])
    )
    np.testing.assert_allclose(every, (first + second) / 2, atol=1e-5)
    assert not np.allclose(first, second)


def test_the_lens_of_what_leaves_the_model_is_the_end(random_subject: MakeSubject) -> None:
    """A model whose last layer adds nothing: the state that enters it is the end, for the logit lens too."""
    subject = random_subject("pause", 60)
    for name, parameter in subject.model.blocks[1].named_parameters():
        if name.endswith(("out.weight", "down.weight")):
            torch.nn.init.zeros_(parameter)
    table = Lens(steps=3).run(subject)[0].table
    last = table[(table.layer == 1) & (table.lens == "logit lens")]
    assert (last.kl.abs() < 1e-5).all()
    assert (table[table.layer == 0].kl > 1e-3).all()


def test_the_readout_finds_the_item_in_the_marks_that_hold_it_alone(known: Callable[..., Subject]) -> None:
    for kind, holds in (("cache", True), ("pointer", False)):
        table = Readout(furthest=1).run(known(kind, n=100))[0].table
        closing = table[table.reader == "closing"].set_index("layer")
        assert closing.accuracy[0] < 0.5, "layer 0 has read nothing yet"
        assert (closing.accuracy[1] == 1) == holds
        assert closing.shuffled[1] < 0.5


def test_preceding_counts_source_tokens_alone(random_subject: MakeSubject) -> None:
    for batch in random_subject("meta").batches:
        places = preceding(batch, 3)
        for row in range(3):
            source = torch.nonzero(~batch.meta_mask_BT[row] & (batch.document_ids_BT[row] >= 0))[:, 0].tolist()
            for t in range(batch.tokens_BT.shape[1]):
                before = [s for s in source if s < t][::-1]
                if batch.document_ids_BT[row, t] >= 0:
                    expected = [before[d] if d < len(before) else -1 for d in range(3)]
                    assert places[:, row, t].tolist() == expected


@pytest.mark.parametrize(
    ("name", "options", "n", "expected"),
    [
        ("cosine", {"layers": [2]}, 40, "probe.cosine.layers=[2]: no layer 2; expected numbers from 0 to 1"),
        ("cosine", {"layers": [-1]}, 40, "no layer -1"),
        ("cosine", {"layers": [0, 0]}, 40, "expected different numbers"),
        ("cosine", {"layers": []}, 40, "expected different numbers, one at least"),
        ("cosine", {"furthest": 0}, 40, "probe.cosine.furthest=0: expected 1 or more"),
        ("cosine", {"permutations": 3}, 40, "probe.cosine.permutations=3: expected 100 or more"),
        ("attention", {"heads": [7]}, 40, "probe.attention.heads=[7]: no head 7; expected numbers from 0 to 1"),
        ("eviction", {"windows": [0]}, 40, "probe.eviction.windows=[0]: expected different numbers of tokens"),
        ("eviction", {}, 29, "--examples=29: probe.eviction expected at least 30 for an interval"),
        ("patching", {}, 29, "--examples=29: probe.patching expected at least 30"),
        ("lens", {}, 59, "--examples=59: probe.lens expected at least 60"),
        ("lens", {"steps": 0}, 60, "probe.lens.steps=0: expected 1 or more"),
        ("readout", {}, 99, "--examples=99: probe.readout expected at least 100 for 5 folds"),
        ("readout", {"furthest": 99}, 100, "probe.readout.furthest=99: expected a number from 1 to 6"),
        ("knockout", {"layers": [5]}, 40, "no layer 5"),
        ("paths", {"layers": [5]}, 40, "no layer 5"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_runs(
    name: str, options: dict[str, Any], n: int, expected: str, random_subject: MakeSubject
) -> None:
    with pytest.raises(UserError) as caught:
        PROBES[name](**options).check(random_subject("meta", n))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_layer_without_second_attention_cannot_be_silenced(random_subject: MakeSubject) -> None:
    subject = random_subject("meta in one layer")
    with pytest.raises(UserError, match="layer 0 has no second attention"):
        PROBES["knockout"](layers=[0]).check(subject)  # type: ignore[call-arg]


def test_text_can_be_seen_but_not_asked(make_data: Any) -> None:  # noqa: F811
    data = make_data()
    data.setup("probe")
    torch.manual_seed(0)
    module = MetaTokenLM(n_layers=2, n_heads=2, d_model=16, vocab_size=320).eval()
    module.separate_documents = data.separate_documents
    examples, batches = held_out(data, 60)
    assert examples is None
    assert sum(len(batch.tokens_BT) for batch in batches) == 60
    subject = Subject(module, data, batches, None, torch.device("cpu"), 0, 60)
    for name in ("eviction", "paths", "knockout", "patching", "readout"):
        assert "it asks about answers" in str(PROBES[name]().cannot(subject))
    for probe in QUICK[:-1]:
        assert probe.cannot(subject) is None
        (finding,) = probe.run(subject)
        assert len(finding.table)
    with pytest.raises(UserError, match=r"--examples=100000: there are \d+ validation blocks"):
        held_out(data, 100_000)
