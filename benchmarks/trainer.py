"""What the trainer adds to a step: `lightning-metatok fit` with its defaults against a bare loop of the same module.

    python -m benchmarks.trainer [--shapes micro "L4 d256"]

fit      all that the command does between two steps: data, callbacks, logs every tenth step, looking for NaN
bare     the same module, optimiser and schedule in a loop, its batches made before
nanogpt  the plain loop of `peers.nanogpt`, on as many tokens
stock    that model in Lightning's own Trainer with its defaults, a loss logged every step

Each round runs each way for some steps; a way's figure of a round is the median of its steps. fit and bare have the
arm that is named; nanogpt has no mechanism.
"""

import contextlib
import io
import itertools
import logging
import statistics
import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks import harness, ours
from benchmarks.peers.nanogpt import NanoGPT
from lightning_metatok.cli import main as command
from lightning_metatok.data import Batch
from lightning_metatok.lit import MetaTokenLM
from lightning_metatok.lit.optim import build_optimizer
from lightning_metatok.lit.targets import summed

STEPS = {"micro": 120, "L4 d256": 12}
SKIPPED = 3
CONF = Path(__file__).parents[1] / "conf" / "debug.yaml"


class Clock:
    """Reads the time at the start of every training batch of a fit, and keeps module and batches."""

    def __init__(self) -> None:
        self.starts: list[float] = []
        self.batches: list[Batch] = []
        self.module: MetaTokenLM | None = None

    def install(self) -> None:
        """Let every fit of this process call it."""
        own, clock = MetaTokenLM.on_train_batch_start, self

        def noted(module: MetaTokenLM, batch: Batch, batch_idx: int) -> None:
            clock.starts.append(harness.now())
            clock.module = module
            if len(clock.batches) < 8:
                clock.batches.append(batch)
            own(module, batch, batch_idx)

        MetaTokenLM.on_train_batch_start = noted  # type: ignore[method-assign]


def median_step(starts: list[float]) -> float:
    """Seconds from one start to the next."""
    return statistics.median(b - a for a, b in itertools.pairwise(starts[SKIPPED:]))


def fit(clock: Clock, name: str, mechanism: str, steps: int) -> float:
    """Seconds of a step of `lightning-metatok fit`."""
    shape = ours.SHAPES[name]
    options = {f"model.{key}": value for key, value in shape.items() if key != "max_positions"}
    options |= {
        "model.mechanism": mechanism, "data.vocab_size": min(512, shape["vocab_size"]), "data.num_workers": 0,
        "data.block_size": shape["max_positions"], "data.meta_length": "within", "data.batch_size": ours.BATCH[name],
        "trainer.max_steps": steps + SKIPPED + 1, "trainer.val_check_interval": 10**6, "trainer.log_every_n_steps": 10,
        "trainer.accelerator": "cpu", "data.validation_blocks": 1, "bigram.enabled": "false",
        "ablation.multiples": "[1]", "ablation.windows": 1, "sample.max_new_tokens": 1,
        "model.optimizer.warmup_steps": 1,
    }  # fmt: skip
    clock.starts, clock.batches = [], []
    with tempfile.TemporaryDirectory() as folder, quiet():
        given = [f"--{key}={value}" for key, value in options.items()]
        status = command(["fit", f"--config={CONF}", *given, f"--run_dir={folder}/run"])
    assert not status, "the fit failed: run it without `quiet`"
    return median_step(clock.starts)


def bare(module: MetaTokenLM, batches: list[Batch], steps: int) -> float:
    """Seconds of a step of the plainest loop around `module`."""
    module._trainer = None
    optimizer, schedule = build_optimizer(module.model, module.optimizer_config)
    starts = []
    for batch in itertools.islice(itertools.cycle(batches), steps + SKIPPED + 1):
        starts.append(harness.now())
        rows = module.rows(batch)
        (summed(module.model, rows).sum / len(rows)).backward()
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    return median_step(starts)


def nano(shape: dict[str, int], texts: Iterable[tuple[Tensor, Tensor]], steps: int) -> float:
    """Seconds of a step of nanoGPT."""
    model = NanoGPT(**shape)
    step = ours.training_step(model, lambda x, y: model(x, y)[1], *next(iter(texts)))
    starts = []
    for _ in range(steps + SKIPPED + 1):
        starts.append(harness.now())
        step()
    return median_step(starts)


class Stock(lightning.LightningModule):
    """nanoGPT as Lightning's tutorials write a module."""

    def __init__(self, shape: dict[str, int]) -> None:
        super().__init__()
        self.model: nn.Module = NanoGPT(**shape)
        self.starts: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The loss."""
        self.starts.append(harness.now())
        loss: Tensor = self.model(*batch)[1]
        self.log("loss/train", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW."""
        return torch.optim.AdamW(self.parameters(), lr=1e-4, fused=True)


def stock(shape: dict[str, int], texts: list[tuple[Tensor, Tensor]], steps: int) -> float:
    """Seconds of a step of Lightning's own Trainer."""
    module = Stock(shape)
    with tempfile.TemporaryDirectory() as folder, quiet():
        loader = DataLoader(texts * (1 + (steps + SKIPPED) // len(texts)), batch_size=None)
        trainer = lightning.Trainer(
            max_steps=steps + SKIPPED + 1, accelerator="cpu", gradient_clip_val=1.0, default_root_dir=folder
        )
        trainer.fit(module, loader)
    return median_step(module.starts)


@contextlib.contextmanager
def quiet() -> Any:
    """Nothing is printed, and nobody is advised."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def main() -> None:
    """Measure and keep."""
    parser = harness.parser(__doc__, rounds=7)
    parser.add_argument("--shapes", nargs="+", choices=list(STEPS), default=list(STEPS))
    options = parser.parse_args()
    harness.begin(options)
    clock = Clock()
    clock.install()
    rows: list[dict[str, Any]] = []
    for name in ["micro"] if options.quick else options.shapes:
        steps, shape = 12 if options.quick else STEPS[name], ours.SHAPES[name]
        seconds: dict[str, list[float]] = {}

        def measure(what: str, value: float, into: dict[str, list[float]] = seconds) -> None:
            into.setdefault(what, []).append(value)

        for _ in range(options.rounds):
            for arm, mechanism in (("plain", "none"), ("meta", "meta")):
                measure(f"fit, {arm}", fit(clock, name, mechanism, steps))
                assert clock.module is not None
                measure(f"bare, {arm}", bare(clock.module, clock.batches, steps))
            texts = [(b.tokens_BT.clone(), b.targets_BT.clone()) for b in clock.batches]
            measure("nanogpt", nano(shape, texts, steps))
            measure("stock", stock(shape, texts, steps))
        pairs = [("fit, plain", "bare, plain"), ("fit, meta", "bare, meta"), ("bare, plain", "nanogpt")]
        pairs += [("bare, meta", "nanogpt"), ("stock", "nanogpt")]
        for (a, b), row in zip(pairs, harness.rows_of(seconds, pairs), strict=True):
            added = statistics.median(x - y for x, y in zip(seconds[a], seconds[b], strict=True))
            rows.append({"shape": name, **row, "added ms": round(1e3 * added, 2)})
    harness.finish("trainer", rows, options)


if __name__ == "__main__":
    main()
