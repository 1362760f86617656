"""HOW attention is computed: the backends by name, and the choice among them.

    auto:  scores transformed -> blocked      blocks of different lengths on CUDA -> varlen, else xformers
           a long text of which little is seen, on a CPU -> blocked             otherwise -> sdpa

Measured on an H200 in bf16 at 8,192 tokens (benchmarks/gpu.py), against causal by sdpa: window_meta by sdpa with its
table 2.1, by flex 20 (random extra tokens leave no block of keys empty, and each pair asks for facts of both), by
blocked 27. So CUDA keeps to tables.

A backend that was asked for by name and cannot do the job is an error, never silently replaced.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from lightning_metatok.errors import UserError, nearest
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.attention.backends import blocked, chosen, flex, reference, sdpa, varlen
from lightning_metatok.model.attention.backends import xformers as xformers_backend
from lightning_metatok.model.attention.backends.reference import Score
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.attention.sight import Sight


class Backend(Protocol):
    """What a backend module offers. `attend` is described in `reference`; `attend_ragged` is None where a
    backend wants blocks of different lengths padded."""

    NAME: str
    TAKES_SCORES: bool
    TAKES_SIGHTS: bool
    TAKES_MASKS: bool
    attend_ragged: Callable[[Tensor, Tensor, Tensor, list[int], float], Tensor] | None

    def why_not(
        self,
        *,
        device: torch.device,
        dtype: torch.dtype,
        dense_mask: bool,
        score: bool,
    ) -> str | None: ...

    def attend(
        self,
        q_BNQH: Tensor,
        k_BNKH: Tensor,
        v_BNKH: Tensor,
        *,
        mask: Tensor | None = None,
        score: Score | None = None,
        dropout: float = 0.0,
    ) -> Tensor: ...


BACKENDS: dict[str, Backend] = {b.NAME: b for b in (reference, sdpa, blocked, flex, varlen, xformers_backend)}


def for_scores() -> list[str]:
    """Names of the backends that can run encodings which transform the scores."""
    return [name for name, backend in BACKENDS.items() if backend.TAKES_SCORES]


def for_masks() -> list[str]:
    """Names of the backends that can run rules that are more than causal."""
    return [name for name, backend in BACKENDS.items() if backend.TAKES_MASKS]


def supports(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    dense_mask: bool = False,
    score: bool = False,
) -> bool:
    """Whether backend `name` can do such a job on this device."""
    return BACKENDS[name].why_not(device=device, dtype=dtype, dense_mask=dense_mask, score=score) is None


def choose(
    name: str,
    *,
    device: torch.device,
    dtype: torch.dtype,
    dense_mask: bool = False,
    score: bool = False,
    blocks: Sequence[int] | None = None,
    sight: Sight | None = None,
) -> Backend:
    """Return the backend for a job: the one named, or for "auto" the fastest that can do it.

    Args:
        name: what is asked for. dense_mask, score: what the job has.
        blocks: lengths of blocks that see themselves alone.
        sight: what queries see, where a backend may look at the keys alone that it names.

    Raises:
        UserError: there is no such backend, or the one named cannot do the job.
    """
    job: dict[str, Any] = {"device": device, "dtype": dtype, "dense_mask": dense_mask, "score": score}
    if name == "auto":
        # Padding costs nothing where blocks are alike, and then one call of sdpa is 1.5 x as fast as varlen; where they
        # differ it is 0.7 x (benchmarks/gpu.py, H200).
        ragged = blocks is not None and len(set(blocks)) > 1
        preferred = [varlen, xformers_backend, sdpa, blocked] if ragged else [sdpa, blocked]
        if sight is not None and not score and device.type == "cpu" and chosen.pays(sight):
            preferred = [blocked]
        return next(b for b in preferred if b.why_not(**job) is None)
    if name not in BACKENDS:
        known = ["auto", *BACKENDS]
        raise UserError(f"model.attention_backend={name!r}: expected one of {', '.join(known)}{nearest(name, known)}")
    if (reason := BACKENDS[name].why_not(**job)) is not None:
        raise UserError(f"model.attention_backend={name!r} cannot run here: {reason}; use 'auto'")
    return BACKENDS[name]


def picks(device: torch.device | str = "cpu", lengths: Sequence[int] = (512, 4096)) -> dict[str, str]:
    """Return what "auto" picks for each pattern with its usual options, at some lengths, and how it comes to that."""
    device = torch.device(device)
    found = {}
    for name in patterns.PATTERNS:
        rule, said = patterns.build(name), []
        for n in lengths:
            extra_1T = (torch.arange(n, device=device) % 10 == 9)[None]
            sight = Sight(rule, Facts.of(n, extra_1T, device=device), slice(0, n)) if rule.needs_mask else None
            job: dict[str, Any] = {"device": device, "dtype": torch.float32, "dense_mask": sight is not None}
            backend = choose("auto", **job, sight=sight)
            share = "causal, no mask" if sight is None else f"it sees {rule.mean_keys(n, 0.1) / n:.0%} of the table"
            said.append(f"{backend.NAME} at {n:,} tokens ({share})")
        found[name] = "; ".join(said)
    return found


def try_backends(device: torch.device | str = "cpu") -> dict[str, str]:
    """Run a tiny forward and backward pass with every backend on `device`; return "ok" or what went wrong."""
    device = torch.device(device)
    report = {}
    for name, backend in BACKENDS.items():
        # What training computes in there.
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        job: dict[str, Any] = {"device": device, "dtype": dtype, "dense_mask": False, "score": False}
        verdict = backend.why_not(**job)
        if verdict is None:
            x = torch.ones(1, 2, 5, 16, device=device, dtype=dtype, requires_grad=True)
            try:
                backend.attend(x, x, x).sum().backward()
            except (ImportError, NotImplementedError, RuntimeError) as error:
                verdict = str(error).splitlines()[0]
        report[name] = verdict or "ok"
    return report
