"""Numbers of the residual stream, against cases whose answer is known."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lightning_metatok.analysis.attention_maps import mass_by_kind, mean_by_distance
from lightning_metatok.analysis.lens import kl_to_end, train_translator
from lightning_metatok.analysis.readout import read_out
from lightning_metatok.analysis.residual import cosine_test, logit_attribution, norm_share


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_unrelated_directions_stay_inside_both_nulls() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 400, 32, generator=generator)
    found = cosine_test(a, b, rng())
    assert found.null_low < found.mean < found.null_high
    assert abs(found.mean) < found.random_half_width
    # Permuted pairs of random directions ARE random directions.
    assert (found.null_high - found.null_low) / 2 == pytest.approx(found.random_half_width, rel=0.25)


def test_a_bond_between_pairs_is_outside_the_null_and_a_common_direction_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    a, noise, common = (
        torch.randn(200, 16, generator=generator),
        torch.randn(200, 16, generator=generator),
        torch.ones(16),
    )
    bonded = cosine_test(a, a + noise, rng())
    assert bonded.mean > bonded.null_high + 0.3
    anisotropic = cosine_test(a + 5 * common, noise + 5 * common, rng())
    assert anisotropic.mean > 0.8
    assert anisotropic.null_low < anisotropic.mean < anisotropic.null_high


def test_size_of_an_update_is_relative_to_what_was_there() -> None:
    assert norm_share(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[0.0, 10.0]]])).item() == 0.5


@pytest.mark.parametrize("bias", [False, True])
def test_parts_of_a_logit_add_up_to_it(bias: bool) -> None:
    """float64, sums of ten parts: 1e-10."""
    generator = torch.Generator().manual_seed(0)
    parts_PKD = torch.randn(10, 7, 16, generator=generator, dtype=torch.float64)
    norm = torch.nn.LayerNorm(16, bias=bias, dtype=torch.float64)
    torch.nn.init.normal_(norm.weight)
    if bias:
        torch.nn.init.normal_(norm.bias)
    directions_KD = torch.randn(7, 16, generator=generator, dtype=torch.float64)
    by_part, from_bias = logit_attribution(parts_PKD, norm.weight, directions_KD, norm.bias, norm.eps)
    logits_K = (norm(parts_PKD.sum(dim=0)) * directions_KD).sum(dim=1)
    torch.testing.assert_close(by_part.sum(dim=0) + from_bias, logits_K, rtol=0, atol=1e-10)


def test_attention_by_kind_and_distance_on_a_matrix_by_hand() -> None:
    probs = torch.tensor([[[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.5, 0.3, 0.2]]])
    seen = torch.ones(1, 3, 3, dtype=torch.bool).tril()
    mark, source = torch.tensor([[False, True, False]]), torch.tensor([[True, False, True]])
    mass, uniform, n = mass_by_kind(probs, source, mark, seen)
    assert (mass.item(), uniform.item(), n.item()) == (pytest.approx(0.15), pytest.approx(1 / 6), 2)
    assert mass_by_kind(probs, mark, mark, seen)[0].item() == 0.75
    sums, counts = mean_by_distance(probs, source, source, seen, 2)
    assert counts.tolist() == [2, 0, 1]
    assert sums.tolist() == pytest.approx([1.2, 0, 0.5])
    # A row that attends to nothing is no row.
    assert mass_by_kind(torch.zeros(1, 3, 3), source, mark, seen)[2].item() == 0


def test_kl_is_the_librarys() -> None:
    end, lens = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0))
    expected = F.kl_div(lens.log_softmax(-1), end.log_softmax(-1), log_target=True, reduction="none").sum(-1)
    torch.testing.assert_close(kl_to_end(end, lens), expected)


def test_a_tuned_lens_undoes_a_change_of_basis_and_the_global_generator_stays() -> None:
    generator = torch.Generator().manual_seed(0)
    end_nD = torch.randn(2000, 8, generator=generator)
    turn_DD, _ = torch.linalg.qr(torch.randn(8, 8, generator=generator))
    states_nD, head_VD = end_nD @ turn_DD + 1, torch.randn(12, 8, generator=generator)

    def readout(x: torch.Tensor) -> torch.Tensor:
        return x @ head_VD.T

    before = torch.random.get_rng_state()
    tuned = train_translator(states_nD[:1000], readout(end_nD[:1000]), readout, steps=600, lr=2e-2)
    assert torch.equal(torch.random.get_rng_state(), before)
    end = readout(end_nD[1000:])
    logit_lens = kl_to_end(end, readout(states_nD[1000:])).mean()
    assert logit_lens > 1
    assert kl_to_end(end, readout(tuned(states_nD[1000:]))).mean() < 0.05 * logit_lens
    # One step is not enough: the map is trained, not given.
    early = train_translator(states_nD[:1000], readout(end_nD[:1000]), readout, steps=1)
    assert kl_to_end(end, readout(early(states_nD[1000:]))).mean() > 0.5 * logit_lens


def test_a_linear_probe_reads_what_is_there_and_nothing_else() -> None:
    generator = rng()
    label_n, group_n = generator.integers(0, 6, 600), np.repeat(np.arange(200), 3)
    codes, noise = generator.normal(size=(6, 12)), generator.normal(size=(600, 12))
    there = read_out(codes[label_n] + 0.1 * noise, label_n, group_n)
    assert there.right_n.mean() > 0.95
    assert there.shuffled_n.mean() < 0.3
    absent = read_out(noise, label_n, group_n)
    assert absent.right_n.mean() < 0.3
    assert abs(absent.majority_n.mean() - 1 / 6) < 0.07


def test_a_probe_is_never_judged_on_a_group_it_saw() -> None:
    """Vectors that name their group, labels that are the group's: reading them needs the group."""
    generator = rng()
    group_n = np.repeat(np.arange(60), 5)
    label_n = generator.integers(0, 2, 60)[group_n]
    found = read_out(np.eye(60)[group_n], label_n, group_n)
    assert found.right_n.mean() < 0.75
