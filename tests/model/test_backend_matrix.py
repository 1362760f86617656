"""Every backend on every pattern equals the reference, in outputs and gradients, whatever it should not read holds.

`make test` draws some cells, `make test-slow` has all. What a backend cannot do here is a skip that says why;
`flex`, which has no backward on a CPU, is compared in its outputs there. Where there is a GPU, cells run on it.
"""

import random
from itertools import product

import pytest
import torch
from torch import Tensor

from lightning_metatok.model.attention import BACKENDS, patterns
from lightning_metatok.model.attention.backends import chosen, flex
from lightning_metatok.model.attention.backends.reference import attend as reference
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.patterns import SameDocument
from lightning_metatok.model.attention.sight import Sight

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LENGTHS, EXTRA = (1, 17, 63, 257, 1000), ("none", "one", "some", "all")
CELLS = list(product(BACKENDS, patterns.PATTERNS, LENGTHS, EXTRA, ("one document", "documents")))
OPTIONS = {"window": {"w": 9}, "window_meta": {"w": 9}, "sinks_window": {"n": 2, "w": 9}}
OPTIONS["sinks_window_meta"] = OPTIONS["sinks_window"]
SOME = random.Random(0).sample([cell for cell in CELLS if cell[2] < 1000 and cell[0] not in ("varlen", "xformers")], 36)


def sight_of(pattern: str, length: int, extra: str, documents: str) -> Sight:
    generator = torch.Generator().manual_seed(length)
    share = {"none": 0.0, "one": 0.0, "some": 0.2, "all": 1.0}[extra]
    extra_BT = torch.rand(2, length, generator=generator) < share
    if extra == "one":
        extra_BT[:, length // 2] = True
    ids_BT = (torch.rand(2, length, generator=generator) < 0.05).cumsum(dim=1)
    rule = patterns.build(pattern, **OPTIONS.get(pattern, {}))
    extra_BT, ids_BT = extra_BT.to(DEVICE), ids_BT.to(DEVICE)
    facts = Facts.of(length, extra_BT, ids_BT if documents == "documents" else None, device=DEVICE)
    return Sight(rule & SameDocument() if documents == "documents" else rule, facts, slice(0, length))


def outputs(attend, inputs: list[Tensor], **seen) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in inputs]
    out = attend(*leaves, **seen)
    weights = torch.arange(out.numel(), dtype=out.dtype).view_as(out).sin()
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), leaves)]


def check(backend: str, pattern: str, length: int, extra: str, documents: str) -> None:
    forward_alone = backend == "flex" and DEVICE.type == "cpu"
    job = {"device": DEVICE, "dtype": torch.float32, "dense_mask": True, "score": False}
    with torch.set_grad_enabled(not forward_alone):
        if backend != "chosen" and (reason := BACKENDS[backend].why_not(**job)) is not None:
            pytest.skip(f"{backend}: {reason}")
    sight = sight_of(pattern, length, extra, documents)
    # flex wants heads of 16 on a GPU.
    inputs = [torch.randn(2, 2, length, 16, generator=torch.Generator().manual_seed(i)).to(DEVICE) for i in range(3)]
    oracle = outputs(reference, inputs, mask=sight.mask)
    if forward_alone:
        with torch.no_grad():
            torch.testing.assert_close(flex.attend(*inputs, sight=sight), oracle[0], atol=2e-5, rtol=2e-5)
        return
    if backend == "chosen":
        ours = outputs(chosen.attend, inputs, sight=sight)
    elif BACKENDS[backend].TAKES_SIGHTS:
        ours = outputs(BACKENDS[backend].attend, inputs, sight=sight)
    else:
        ours = outputs(BACKENDS[backend].attend, inputs, mask=sight.mask)
    torch.testing.assert_close(ours, oracle, atol=2e-5, rtol=2e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("cell", SOME, ids=lambda cell: "-".join(map(str, cell)))
def test_a_cell(cell: tuple[str, str, int, str, str]) -> None:
    check(*cell)


@pytest.mark.slow
@pytest.mark.parametrize("backend", [*BACKENDS, "chosen"])
@pytest.mark.parametrize("pattern", patterns.PATTERNS)
def test_all_cells(backend: str, pattern: str) -> None:
    for length, extra, documents in product(LENGTHS, EXTRA, ("one document", "documents")):
        check(backend, pattern, length, extra, documents)


@pytest.mark.parametrize(
    "pattern", ["window", "window_meta", "chunk_meta", "gist", "sinks_window", "sinks_window_meta"]
)
def test_what_nobody_sees_may_be_anything(pattern: str) -> None:
    """NaN in keys that no row of a block needs: the last rows alone, as generation asks for them."""
    sight = sight_of(pattern, 257, "some", "one document")
    last = Sight(sight.rule, sight.facts, slice(250, 257))
    hidden_K = ~sight.rule.needed(sight.facts, last.queries).expand(2, -1).any(dim=0)
    assert hidden_K.any()
    q, k, v = (torch.randn(2, 2, 257, 8, generator=torch.Generator().manual_seed(i)).to(DEVICE) for i in range(3))
    clean = reference(q[:, :, 250:], k, v, mask=last.mask)
    k[:, :, hidden_K], v[:, :, hidden_K] = torch.nan, torch.nan
    torch.testing.assert_close(chosen.attend(q[:, :, 250:], k, v, last), clean, atol=1e-5, rtol=1e-5)
