"""Every backend equals the reference in outputs and gradients, and refuses what it cannot do."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_metatok.errors import UserError
from lightning_metatok.model.attention import BACKENDS, MetaBlocks, backends, masks, supports, try_backends
from lightning_metatok.model.attention.backends import blocked, flex
from lightning_metatok.model.attention.backends.reference import attend as reference
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.meta import attend_blocks
from lightning_metatok.model.attention.patterns import SameDocument, SinksWindow, WindowMeta
from lightning_metatok.model.attention.sight import Sight
from tests.model.helpers import batch, meta_to_meta, same_document, tiny

CPU = torch.device("cpu")
RUNNABLE = [name for name in BACKENDS if supports(name, device=CPU)]


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks of some rows, so that `blocked` has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocked, "BLOCK", 500)
        yield


def with_gradients(attend, inputs: list[torch.Tensor], **options) -> list[torch.Tensor]:
    """Output of `attend` and the gradients of a weighted sum of it."""
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attend(*leaves, **options)
    weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


@pytest.mark.parametrize("name", RUNNABLE)
@given(length=st.integers(1, 37), mask_kind=st.sampled_from(["causal", "documents", "fill", "large fill", "blind"]))
@settings(deadline=None, max_examples=25)
def test_a_backend_equals_the_reference_in_outputs_and_gradients(name: str, length: int, mask_kind: str) -> None:
    torch.manual_seed(length)
    inputs = [torch.randn(2, 3, length, 8) for _ in range(3)]
    causal, coin = masks.causal(length), torch.rand(length) < 0.4
    mask = {
        "causal": None,
        "documents": causal & same_document(coin.cumsum(0)),
        "fill": masks.additive(causal, meta_to_meta(coin), -8.0, torch.float32),
        "large fill": masks.additive(causal, meta_to_meta(coin), -1e9, torch.float32),
        "blind": causal & meta_to_meta(coin),
    }[mask_kind]
    ours = with_gradients(BACKENDS[name].attend, inputs, mask=mask)
    oracle = with_gradients(reference, inputs, mask=mask)
    # Float32 sums in another order: a few units in the last place of values around 1.
    torch.testing.assert_close(ours, oracle, atol=5e-6, rtol=1e-5)


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_row_that_sees_nothing_gives_zero(name: str) -> None:
    q, k, v = torch.randn(3, 1, 2, 4, 8).unbind()
    mask = masks.causal(4) & meta_to_meta(torch.tensor([False, True, False, True]))
    out = BACKENDS[name].attend(q, k, v, mask=mask)
    assert torch.equal(out[:, :, ::2], torch.zeros(1, 2, 2, 8))


@pytest.mark.parametrize("masked", [False, True])
def test_the_reference_passes_gradcheck_in_float64(masked: bool) -> None:
    inputs = [torch.randn(1, 2, 5, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    mask = masks.causal(5) & meta_to_meta(torch.tensor([0, 1, 0, 1, 1]).bool()) if masked else None
    assert torch.autograd.gradcheck(lambda q, k, v: reference(q, k, v, mask=mask), inputs)


def test_the_finite_fill_of_the_paper_s_pitfall_is_not_zero_on_ordinary_rows() -> None:
    q, k, v = torch.randn(3, 1, 1, 16, 8).unbind()
    is_meta = torch.zeros(16, dtype=torch.bool)
    is_meta[[3, 7, 12]] = True
    causal, soft = masks.causal(16), meta_to_meta(is_meta)
    mild = reference(q, k, v, mask=masks.additive(causal, soft, -1e4, torch.float32))
    hard = reference(q, k, v, mask=masks.additive(causal, soft, -1e9, torch.float32))
    uniform = v.cumsum(-2) / torch.arange(1, 17)[:, None]
    # At 1e4 float32 is spaced 1e-3, which the scores' rounding inherits; at 1e9 it is spaced 64.
    torch.testing.assert_close(mild[:, :, ~is_meta], reference(q, k, v)[:, :, ~is_meta], atol=5e-3, rtol=0)
    torch.testing.assert_close(hard[:, :, ~is_meta], uniform[:, :, ~is_meta], atol=1e-6, rtol=1e-5)


def test_auto_takes_what_can_do_the_job() -> None:
    job = {"device": CPU, "dtype": torch.float32}
    assert backends.choose("auto", **job).NAME == "sdpa"
    assert backends.choose("auto", **job, blocks=[3, 1]).NAME == "sdpa"
    assert backends.choose("auto", **job, score=True).NAME == "blocked"


def test_a_named_backend_that_cannot_run_is_an_error_not_replaced() -> None:
    with pytest.raises(UserError, match="attention_backend='xformers' cannot run here: its kernels need CUDA"):
        backends.choose("xformers", device=CPU, dtype=torch.float32)
    with pytest.raises(UserError, match="'sdpa' cannot run here: it cannot transform scores"):
        backends.choose("sdpa", device=CPU, dtype=torch.float32, score=True)
    with pytest.raises(UserError, match="did you mean 'reference'"):
        backends.choose("refrence", device=CPU, dtype=torch.float32)


def test_the_doctor_s_report_covers_every_backend() -> None:
    report = try_backends()
    assert report["reference"] == report["sdpa"] == "ok"
    assert "CUDA" in report["xformers"]
    assert "CUDA" in report["varlen"]
    assert "no backward" in report["flex"]


@pytest.mark.parametrize("kind", ["causal", "documents", "added", "sight", "last row"])
@torch.no_grad()
def test_flex_equals_the_reference(kind: str) -> None:
    """Outputs alone: PyTorch has no backward of it on a CPU."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 150, 8).unbind()
    extra_BT = torch.rand(2, 150) < 0.2
    documents_BT = (torch.rand(2, 150) < 0.03).cumsum(dim=1)
    rule = (WindowMeta(w=20) | SinksWindow(n=2, w=1)) & SameDocument()
    sight = Sight(rule, Facts.of(150, extra_BT, documents_BT), slice(0, 150))
    mask = {
        "documents": masks.causal(150) & same_document(documents_BT).unsqueeze(1),
        "added": masks.additive(masks.causal(150), meta_to_meta(extra_BT[0]), -8.0, torch.float32)[None, None],
        "sight": sight.mask,
    }.get(kind)
    seen = {"sight": sight} if kind == "sight" else {"mask": mask}
    if kind == "last row":
        q, seen = q[:, :, -1:], {"mask": None}
    torch.testing.assert_close(flex.attend(q, k, v, **seen), reference(q, k, v, mask=mask), atol=5e-6, rtol=1e-5)


def test_flex_says_what_it_cannot_do() -> None:
    with pytest.raises(UserError, match="'flex' cannot run here: PyTorch has no backward of it on cpu"):
        backends.choose("flex", device=CPU, dtype=torch.float32)
    with torch.no_grad():
        assert backends.choose("flex", device=CPU, dtype=torch.float32).NAME == "flex"
        x = torch.zeros(1, 1, 3, 8)
        with pytest.raises(UserError, match=r"model\.dropout=0\.1: expected 0 with model\.attention_backend='flex'"):
            flex.attend(x, x, x, dropout=0.1)


def test_a_model_reads_with_flex_what_it_reads_with_any_other() -> None:
    for arm in ({}, {"pattern": "window_meta", "pattern_options": {"w": 4}}, {"mechanism_options": {"fill": -8.0}}):
        with torch.no_grad():
            one, other = (tiny(**arm, attention_backend=name)(*batch()) for name in ("flex", "reference"))
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen's kernels need a CUDA device")
def test_varlen_equals_the_reference_on_cuda() -> None:
    blocks = MetaBlocks.find(torch.rand(3, 67, device="cuda") < 0.4)
    inputs = [torch.randn(len(blocks.rows_R), 2, 16, device="cuda", dtype=torch.bfloat16) for _ in range(3)]
    ours, oracle = (attend_blocks(*inputs, blocks, backend=name) for name in ("varlen", "reference"))
    torch.testing.assert_close(ours, oracle, atol=2e-2, rtol=2e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers' kernels need a CUDA device")
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_xformers_equals_the_reference_on_cuda(fraction: float) -> None:
    blocks = MetaBlocks.find(torch.rand(3, 67, device="cuda") < fraction)
    inputs = [torch.randn(len(blocks.rows_R), 2, 16, device="cuda") for _ in range(3)]
    ours, oracle = (attend_blocks(*inputs, blocks, backend=name) for name in ("xformers", "reference"))
    torch.testing.assert_close(ours, oracle, atol=1e-3, rtol=1e-3)
