"""One GPU: GPT-2 small in bf16, compiled, and what attends how fast to which pattern.

    python -m benchmarks.gpu

MFU: the FLOPs that a step needs over its time and the peak of the device. `MFU` counts the scores that a causal model
needs, `MFU, all pairs` all T x T of them, as nanoGPT and PaLM do, which published figures are. A step is forward, loss
at scored positions, backward, clipping and fused AdamW, as training makes them (`lit.targets`), and asks the device for
nothing. Attention is timed forward and backward, by each backend that can, 16 heads of 64 in bf16.
"""

from collections.abc import Callable
from typing import Any

import torch

from benchmarks import harness, ours
from lightning_metatok import devices
from lightning_metatok.data import Batch
from lightning_metatok.lit import targets
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model import loss as losses
from lightning_metatok.model.attention import BACKENDS, patterns
from lightning_metatok.model.attention.facts import Facts, evenly
from lightning_metatok.model.attention.meta import MetaBlocks, attend_blocks
from lightning_metatok.model.attention.sight import Sight

SMALL = {"n_layers": 12, "n_heads": 12, "d_model": 768, "vocab_size": 50304, "max_positions": 1024}
TINY = {"n_layers": 2, "n_heads": 2, "d_model": 64, "vocab_size": 512, "max_positions": 128}
BATCH = 32
ARMS = {"plain, blocks compiled": "none", "plain": "none", "meta": "meta"}
PATTERNS: dict[str, dict[str, Any]] = {"causal": {}, "window_meta": {"w": 256}, "chunk_meta": {}}


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--profile", action="store_true", help="print what takes longest")
    options = parser.parse_args()
    harness.begin(options)
    torch.set_float32_matmul_precision("high")
    rows: list[dict[str, Any]] = []
    for part in (attention, blocks, steps):  # the last takes longest
        rows += part(options)
        harness.finish("gpu", rows, options)


def steps(options: Any) -> list[dict[str, Any]]:
    """A training step of each arm."""
    shape, batch = (TINY, 2) if options.quick else (SMALL, BATCH)
    ways: dict[str, Callable[[], None]] = {}
    flops, memory, pairs, compiling = {}, {}, {}, {}
    n = batch * shape["max_positions"]
    for arm, mechanism in ARMS.items():
        model = MetaTransformer(TransformerConfig(**shape, mechanism=mechanism)).to(device())  # type: ignore[arg-type]
        if arm.endswith("blocks compiled"):
            for block in model.blocks:
                block.compile()
        else:
            model.compile()
        tokens_BT, meta_mask_BT = ours.text(shape, batch)
        mask_BT = torch.zeros_like(meta_mask_BT) if arm.startswith("plain") else meta_mask_BT
        ids_BT = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT).contiguous()
        one = Batch(tokens_BT, ours.targets_of(tokens_BT, mask_BT), mask_BT, torch.zeros_like(tokens_BT), ids_BT).to(
            device()
        )
        share = 0.0 if arm.startswith("plain") else ours.FRACTION
        flops[arm] = n * model.flops_per_token(shape["max_positions"], share)
        pairs[arm] = n * 6 * shape["n_layers"] * shape["d_model"] * shape["max_positions"]
        ways[arm] = step_of(model, one, fused=True)
        start = harness.now()
        ways[arm]()
        ways[arm]()
        compiling[arm] = harness.now() - start
        print(f"{arm}: two steps, compilation among them, {compiling[arm]:.0f} s", flush=True)
        memory[arm] = harness.held_at_most(ways[arm], device())
    seconds = harness.in_turn(ways, options.rounds, repeats=1 if options.quick else 5)
    if options.profile:
        print_kernels(ways["plain"])
        print_kernels(ways["meta"])
    rows = harness.rows_of(seconds, [(arm, "plain") for arm in ARMS])
    peak = peak_flops()
    for row in rows:
        arm = row["what"].split(" / ")[0]
        row["compile s"] = round(compiling[arm])
        row["tokens/s"] = round(1e3 * n / row["ms"])
        row["MiB"] = round(memory[arm])
        if peak is not None:
            row["MFU"] = round(1e3 * flops[arm] / row["ms"] / peak, 3)
            row["MFU, all pairs"] = round(1e3 * (flops[arm] + pairs[arm]) / row["ms"] / peak, 3)
    return [{"shape": f"GPT-2 small, {batch} x {shape['max_positions']}", **row} for row in rows]


def step_of(model: MetaTransformer, one: Batch, *, fused: bool) -> Callable[[], None]:
    """A function that makes one step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device(), torch.bfloat16):
            rows = targets.Rows.of(model, one, separate_documents=False)
            found = losses.summed(rows.hidden_KD, model.head_weight, rows.targets_K, fused=fused)
            loss = found.sum / len(rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def attention(options: Any) -> list[dict[str, Any]]:
    """Self-attention of each pattern by each backend, at 8,192 tokens."""
    T = 256 if options.quick else 8192
    dtype = torch.bfloat16 if device() == "cuda" else torch.float32
    inputs = [torch.randn(1, 16, T, 64, device=device(), dtype=dtype, requires_grad=True) for _ in range(3)]
    rows = []
    ways: dict[str, Callable[[], None]] = {}
    for pattern, switches in PATTERNS.items():
        rule = patterns.build(pattern, **switches)
        extra_1T = evenly(T, 0.1)[None].to(device())
        sight = Sight(rule, Facts.of(T, extra_1T, device=torch.device(device())), slice(0, T))
        for name, backend in BACKENDS.items():
            masked = rule.needs_mask
            job: dict[str, Any] = {"device": inputs[0].device, "dtype": dtype, "dense_mask": masked, "score": False}
            if name == "reference" or backend.why_not(**job) is not None:
                continue
            seen = {} if not masked else {"sight": sight} if backend.TAKES_SIGHTS else {"mask": sight.mask}
            way = forward_and_backward(lambda b=backend, s=seen: b.attend(*inputs, **s), inputs)  # type: ignore[misc]
            try:
                way()
            except RuntimeError as error:
                rows.append({"shape": f"T {T:,}", "what": f"{pattern}, {name}: {str(error).splitlines()[0][:80]}"})
                continue
            ways[f"{pattern}, {name}"] = way
    seconds = harness.in_turn(ways, options.rounds)
    found = harness.rows_of(seconds, [(way, "causal, sdpa") for way in ways])
    if options.profile:
        print_kernels(ways["window_meta, sdpa"])
    return rows + [{"shape": f"T {T:,}", **row} for row in found]


def blocks(options: Any) -> list[dict[str, Any]]:
    """Meta-attention's blocks by each backend, of as many meta-tokens each and of different numbers."""
    T = 128 if options.quick else 1024
    dtype = torch.bfloat16 if device() == "cuda" else torch.float32
    rows = []
    for kind in ("alike", "different"):
        scattered_BT = torch.rand(BATCH, T)
        mask_BT = scattered_BT.argsort(dim=1) < T // 10 if kind == "alike" else scattered_BT < 0.1
        found = MetaBlocks.find(mask_BT.to(device()))
        R = len(found.rows_R)
        inputs = [torch.randn(R, 12, 64, device=device(), dtype=dtype, requires_grad=True) for _ in range(3)]
        ways = {}
        for name, backend in BACKENDS.items():
            job: dict[str, Any] = {"device": inputs[0].device, "dtype": dtype, "dense_mask": False, "score": False}
            if name in ("reference", "flex") or backend.why_not(**job) is not None:
                continue
            call = lambda b=name, x=inputs, at=found: attend_blocks(*x, at, backend=b)  # type: ignore[misc]  # noqa: E731
            ways[name] = forward_and_backward(call, inputs)
        seconds = harness.in_turn(ways, options.rounds, repeats=20)
        named = harness.rows_of(seconds, [(way, "sdpa") for way in ways])
        rows += [{"shape": f"meta blocks, {kind}", **row} for row in named]
    return rows


def forward_and_backward(call: Callable[[], torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], None]:
    """A function that does both."""

    def way() -> None:
        out = call()
        torch.autograd.grad(out, inputs, torch.ones_like(out))

    return way


def print_kernels(way: Callable[[], None]) -> None:
    """What one call takes its time for."""
    with torch.profiler.profile() as profile:
        way()
        harness.now()
    print(profile.key_averages().table(sort_by="cuda_time_total", row_limit=18, max_name_column_width=60), flush=True)


def device() -> str:
    """Where it is measured; without a GPU only that it runs can be seen."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def peak_flops() -> float | None:
    """Dense bf16 FLOP/s of the GPU at hand; None: unknown."""
    if device() != "cuda":
        return None
    found = devices.named(torch.cuda.get_device_name())
    return None if found is None else found.peak_flop_per_s


if __name__ == "__main__":
    main()
