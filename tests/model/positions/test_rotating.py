"""Encodings that turn q and k: each against matrices written out in loops, against Hugging Face, and its reductions."""

import math
from typing import Any

import pytest
import torch
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb as turn_pairs_side_by_side

from lightning_metatok.errors import UserError
from lightning_metatok.model import positions
from tests.model.positions.naive import IDS, KEEP, Turning, assert_same_scores, rotation, scores_of

HEAD_DIM, N_HEADS = 10, 3
SIZES = {"n_layers": 2, "n_heads": N_HEADS, "head_dim": HEAD_DIM, "d_model": 30, "max_positions": 32}


def build(name: str, **options: Any) -> Any:
    sizes = {key: options.pop(key, size) for key, size in SIZES.items()}
    return positions.build(name, **sizes, **options)


def thetas(base: float, dim: int) -> list[float]:
    return [base ** (-2 * p / dim) for p in range(dim // 2)]


def rotary(dim: int, half: bool, frequencies: Any, scale: float = 1.0) -> Turning:
    """Frequencies are a list, or a function of how many positions the query sees."""

    def turning(position: int, length: int, head: int) -> Any:
        known = frequencies(length) if callable(frequencies) else frequencies
        matrix = rotation([position * theta for theta in known], HEAD_DIM, half=half, scale=scale)
        return matrix, matrix

    return turning


def yarn(base: float, dim: int, factor: float, original: int, fast: float, slow: float) -> list[float]:
    def place(turns: float) -> float:
        return dim * math.log(original / (2 * math.pi * turns)) / (2 * math.log(base))

    low, high = max(math.floor(place(fast)), 0), min(math.ceil(place(slow)), dim - 1)
    mixed = []
    for p, theta in enumerate(thetas(base, dim)):
        share = min(max((p - low) / ((high - low) or 0.001), 0.0), 1.0)
        mixed.append(share * theta / factor + (1 - share) * theta)
    return mixed


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
@pytest.mark.parametrize("fraction", [1.0, 0.65])
def test_rotary_equals_matrices_written_out(pairing: str, fraction: float) -> None:
    dim = 10 if fraction == 1 else 6
    encoding = build("rotary", pairing=pairing, fraction=fraction, base=500.0)
    assert_same_scores(encoding, rotary(dim, pairing == "half", thetas(500.0, dim)), n_heads=N_HEADS, head_dim=HEAD_DIM)


def dynamic(length: int) -> list[float]:
    stretch = max(1.0, 2 * length / 8 - 1)
    return thetas(10000.0 * stretch ** (10 / 8), 10)


EXTENDED: list[tuple[dict[str, Any], Any, float]] = [
    ({"scaling": "linear", "factor": 4.0}, [theta / 4 for theta in thetas(10000.0, 10)], 1.0),
    ({"scaling": "ntk", "factor": 4.0}, thetas(10000.0 * 4 ** (10 / 8), 10), 1.0),
    (
        {"scaling": "yarn", "factor": 4.0, "original_max_positions": 200, "beta_fast": 8.0},
        yarn(10000.0, 10, 4.0, 200, 8.0, 1.0),
        0.1 * math.log(4) + 1,
    ),
    (
        {"scaling": "yarn", "factor": 4.0, "original_max_positions": 200, "attention_factor": 1.5},
        yarn(10000.0, 10, 4.0, 200, 32.0, 1.0),
        1.5,
    ),
    ({"scaling": "dynamic", "factor": 2.0, "original_max_positions": 8}, dynamic, 1.0),
]


@pytest.mark.parametrize(
    ("options", "frequencies", "scale"), EXTENDED, ids=["linear", "ntk", "yarn", "yarn-factor", "dynamic"]
)
def test_scaled_rotary_equals_matrices_written_out(options: dict[str, Any], frequencies: Any, scale: float) -> None:
    encoding = build("rotary", **options)
    assert_same_scores(encoding, rotary(10, True, frequencies, scale), n_heads=N_HEADS, head_dim=HEAD_DIM)


def test_dynamic_scaling_turns_part_of_a_head_in_either_pairing() -> None:
    encoding = build(
        "rotary", scaling="dynamic", factor=2.0, original_max_positions=8, fraction=0.65, pairing="interleaved"
    )

    def frequencies(length: int) -> list[float]:
        return thetas(10000.0 * max(1.0, 2 * length / 8 - 1) ** (6 / 4), 6)

    assert_same_scores(encoding, rotary(6, False, frequencies), n_heads=N_HEADS, head_dim=HEAD_DIM)


@pytest.mark.parametrize("pairing", ["half", "interleaved"])
def test_xpos_equals_matrices_written_out(pairing: str) -> None:
    def turning(position: int, length: int, head: int) -> Any:
        of_q = of_k = torch.eye(HEAD_DIM, dtype=torch.float64)
        for p, theta in enumerate(thetas(10000.0, HEAD_DIM)):
            zeta = (2 * p + 0.4 * HEAD_DIM) / (1.4 * HEAD_DIM)
            angles = [position * theta if other == p else 0.0 for other in range(HEAD_DIM // 2)]
            turn = rotation(angles, HEAD_DIM, half=pairing == "half")
            first, second = (p, p + HEAD_DIM // 2) if pairing == "half" else (2 * p, 2 * p + 1)
            grow, shrink = torch.eye(HEAD_DIM, dtype=torch.float64), torch.eye(HEAD_DIM, dtype=torch.float64)
            grow[first, first] = grow[second, second] = zeta ** (position / 20)
            shrink[first, first] = shrink[second, second] = zeta ** (-position / 20)
            of_q, of_k = grow @ turn @ of_q, shrink @ turn @ of_k
        return of_q, of_k

    encoding = build("xpos", pairing=pairing, scale_base=20.0)
    assert_same_scores(encoding, turning, n_heads=N_HEADS, head_dim=HEAD_DIM)


def test_xpos_scales_are_the_golden_ones() -> None:
    encoding = build("xpos", head_dim=64)
    (cos, sin), _ = encoding.prepare(torch.tensor([[512]]), None)
    scale = torch.hypot(cos, sin)[0, 0, 0]
    torch.testing.assert_close(scale[[0, 1, 31]], torch.tensor([0.28571429, 0.30803571, 0.97767857]))


@pytest.mark.parametrize("padding", ["zero_frequency", "ones"])
def test_fope_equals_series_written_out(padding: str) -> None:
    torch.manual_seed(0)
    # 2 pi / 300 leaves the frequencies 1, 0.158, 0.0251 of five; a series of two of them fills as many pairs.
    encoding = build("fope", padding=padding, original_max_positions=300, sigma=0.5)
    kept = [theta for theta in thetas(10000.0, HEAD_DIM) if theta >= 2 * math.pi / 300]
    assert encoding.cos_NDF.shape == (N_HEADS, len(kept), 2) == (3, 3, 2)

    def turning(position: int, length: int, head: int) -> Any:
        matrix = torch.zeros(HEAD_DIM, HEAD_DIM, dtype=torch.float64)
        for p in range(HEAD_DIM // 2):
            cos, sin = 1.0, float(padding == "ones")
            if p < 2:
                cos = sum(math.cos(position * w) * float(encoding.cos_NDF[head, d, p]) for d, w in enumerate(kept))
                sin = sum(math.sin(position * w) * float(encoding.sin_NDF[head, d, p]) for d, w in enumerate(kept))
            other = p + HEAD_DIM // 2
            matrix[p, p], matrix[p, other], matrix[other, p], matrix[other, other] = cos, -sin, sin, cos
        return matrix, matrix

    assert_same_scores(encoding, turning, n_heads=N_HEADS, head_dim=HEAD_DIM)


def test_fope_fills_nine_of_sixteen_columns_at_the_authors_size() -> None:
    torch.manual_seed(0)
    encoding = build("fope", head_dim=64, n_heads=8, max_positions=1024, sigma=0.0)
    assert encoding.cos_NDF.shape == (8, 18, 16)
    expected = torch.zeros(18, 16)
    for column in range(9):
        expected[2 * column, column] = 1
    assert torch.equal(encoding.cos_NDF, expected.expand(8, -1, -1))
    # Xavier fans of the 3-D tensor: std = sigma * sqrt(2 / (18 * 16 + 8 * 16)).
    noise = build("fope", head_dim=64, n_heads=8, max_positions=1024, sigma=0.3).sin_NDF - expected
    assert noise.std().item() == pytest.approx(0.3 * math.sqrt(2 / (18 * 16 + 8 * 16)), rel=0.05)


def test_fope_scores_depend_on_more_than_the_distance() -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, N_HEADS, 1, HEAD_DIM).expand(-1, -1, -1, 2, -1)
    here, there = (
        scores_of(build("fope", sigma=sigma, floor=False), q, k, torch.tensor([[4, 1]]), None)[0, :, 0, 1]
        - scores_of(build("fope", sigma=sigma, floor=False), q, k, torch.tensor([[9, 6]]), None)[0, :, 0, 1]
        for sigma in (0.0, 0.3)
    )
    assert here.abs().max() < 1e-5
    assert there.abs().min() > 1e-3


REDUCTIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("xpos", {"gamma": 1e9}, {"pairing": "interleaved"}),
    ("xpos", {"scale_base": 1e12, "pairing": "half"}, {}),
    ("fope", {"sigma": 0.0, "floor": False}, {}),
    ("rotary", {"scaling": "yarn", "factor": 1.0, "original_max_positions": 32}, {}),
    ("rotary", {"scaling": "linear"}, {}),
    ("rotary", {"scaling": "ntk"}, {}),
    ("rotary", {"scaling": "dynamic", "original_max_positions": 1000}, {}),
    ("rotary", {"scaling": "dynamic", "factor": 8.0, "original_max_positions": 91, "pairing": "interleaved"},
     {"pairing": "interleaved"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options", "plain"), REDUCTIONS, ids=str)
def test_it_reduces_to_rotary(name: str, options: dict[str, Any], plain: dict[str, Any]) -> None:
    torch.manual_seed(0)
    q, k = torch.randn(2, 2, N_HEADS, 7, HEAD_DIM, dtype=torch.float64)
    for keep in (None, KEEP):
        ours, theirs = (scores_of(e, q, k, IDS, keep) for e in (build(name, **options), build("rotary", **plain)))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize(
    ("theirs", "scaling", "factor"), [("linear", "linear", 4.0), ("dynamic", "ntk", 4.0), ("yarn", "yarn", 8.0)]
)
def test_frequencies_are_those_of_hugging_face(theirs: str, scaling: str, factor: float, fraction: float) -> None:
    parameters = {"rope_type": theirs, "factor": factor, "rope_theta": 10000.0, "partial_rotary_factor": fraction}
    if theirs == "yarn":
        parameters["original_max_position_embeddings"] = 1024
    config = LlamaConfig(
        hidden_size=128, num_attention_heads=2, max_position_embeddings=1024, rope_parameters=parameters
    )
    # With s L / L0 - (s - 1) = s, so L = L0 (2 - 1 / s), their dynamic scaling is NTK-aware scaling by s.
    expected, attention_factor = ROPE_INIT_FUNCTIONS[theirs](config, seq_len=1024 * (2 - 1 / factor))
    ours = build(
        "rotary", head_dim=64, fraction=fraction, scaling=scaling, factor=factor, original_max_positions=1024
    ).frequencies
    torch.testing.assert_close(ours.fixed(torch.device("cpu")), expected)
    assert ours.attention_factor == pytest.approx(attention_factor)
    if theirs == "dynamic":
        moving = build(
            "rotary", head_dim=64, fraction=fraction, scaling="dynamic", factor=factor, original_max_positions=1024
        ).frequencies
        for length in (5, 1024, 1025, 4096):
            expected, _ = ROPE_INIT_FUNCTIONS[theirs](config, seq_len=length)
            torch.testing.assert_close(moving.of_lengths(torch.tensor(length)), expected)


def test_interleaved_pairs_are_those_of_gpt_j() -> None:
    q, k = torch.randn(2, 2, 7, N_HEADS, HEAD_DIM)
    angles = IDS[..., None] * 10000.0 ** -(torch.arange(0, HEAD_DIM, 2) / HEAD_DIM)
    expected = [turn_pairs_side_by_side(x, angles.sin(), angles.cos()).transpose(1, 2) for x in (q, k)]
    turned = build("rotary", pairing="interleaved").rotate(q.transpose(1, 2), k.transpose(1, 2), IDS, None)
    torch.testing.assert_close(turned, tuple(expected))


@pytest.mark.parametrize(
    ("factor", "golden"),
    [
        (4.0, [1, 0.237137371, 0.167568637, 0.0400127481, 0.0188520399, 0.00230736680, 0.00140585331, 3.33380358e-5]),
        (8.0, [1, 0.237137371, 0.165858753, 0.0373091841, 0.0167235838, 0.00144210425, 0.000702926656, 1.66690179e-5]),
    ],
)
def test_yarn_frequencies_are_the_golden_ones(factor: float, golden: list[float]) -> None:
    yarn = build("rotary", head_dim=64, scaling="yarn", factor=factor, original_max_positions=1024).frequencies
    frequencies = yarn.fixed(torch.device("cpu"))[[0, 5, 6, 10, 12, 17, 18, 31]]
    torch.testing.assert_close(frequencies, torch.tensor(golden), rtol=2e-6, atol=0)
    assert yarn.attention_factor == pytest.approx({4.0: 1.1386294361, 8.0: 1.2079441542}[factor])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fraction": 0.1}, "fraction=0.1: expected a share that leaves at least a pair of the 10 dimensions"),
        ({"fraction": 1.5}, "fraction=1.5: expected a number above 0, at most 1"),
        ({"pairing": "halve"}, "did you mean 'half'"),
        ({"scaling": "yarm"}, "did you mean 'yarn'"),
        ({"factor": 4.0}, "factor=4.0: expected 1 with scaling='none'; or scaling: linear, ntk, dynamic or yarn"),
        ({"scaling": "yarn", "factor": 4.0}, "original_max_positions=None: expected the length trained on"),
        ({"scaling": "dynamic"}, "original_max_positions=None: expected the length trained on"),
        ({"scaling": "ntk", "fraction": 0.2}, "scaling='ntk': expected linear or yarn"),
        ({"scaling": "linear", "beta_fast": 8.0}, "scaling='linear': expected yarn, which alone takes beta_fast"),
        (
            {"scaling": "yarn", "original_max_positions": 8, "beta_fast": 1.0},
            "beta_fast=1.0: expected more than beta_slow=1",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match="position_options") as caught:
        build("rotary", **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_positions": 4}, "floor=True: expected false, because no frequency turns once within so few positions"),
        ({"series": 6, "floor": False}, "series=6: expected at most 5, the frequencies above the floor"),
    ],
)
def test_a_series_of_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        build("fope", **options)
    assert message in str(caught.value)
