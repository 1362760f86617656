"""Tokens per second, model FLOP/s, their share of the GPU's peak, and peak memory, over a window of training steps."""

import resource
import sys
import time
from typing import Any

import torch
from lightning.fabric.utilities.throughput import Throughput as ThroughputWindow
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok import devices
from lightning_metatok.data import Batch
from lightning_metatok.lit.data.protocol import data_of
from lightning_metatok.lit.micro_steps import micro_step

MFU = "throughput/mfu"
"""Model FLOP/s as a share of the dense 16-bit peak of the GPU (Chowdhery et al. 2022, PaLM, appendix B)."""
WINDOWS = ("_time", "_batches", "_samples", "_lengths", "_flops")
"""Where Lightning keeps a window, which it cannot save."""


class Throughput(Callback):
    """Log `throughput/*` every `trainer.log_every_n_steps`.

    The clock stops while validation, ablations and checkpoints run, so that a figure says what training costs.

    Args:
        window: Number of batches over which rates are averaged.
    """

    def __init__(self, window: int = 50) -> None:
        self.window = window
        self.source_tokens = 0
        self.tokens = 0
        self._seconds = 0.0
        self._window: dict[str, Any] = {}
        self._shape = 0, 0.0, 0.0
        """Length of the samples of the last batch, share of meta-tokens, FLOPs a token."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start a new window, or go on in that of the checkpoint."""
        self._peak = self.peak_flop_per_s(trainer)
        self._rates = ThroughputWindow(window_size=self.window)
        self._running_since: float | None = None
        self._seconds = 0.0
        self._batches = 0
        self._rows = self._counted_tokens = 0
        if self._window:
            self._seconds, self._batches = self._window["seconds"], self._window["batches"]
            self._rows, self._counted_tokens = self._window["rows"], self._window["counted_tokens"]
            for name, values in self._window["rates"].items():
                getattr(self._rates, name).extend(values)
            self._window = {}

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Start the clock, the first time and after a validation; between steps it runs on, waits for data included."""
        self._micro_step = micro_step(trainer, batch_idx)
        if self._running_since is None:
            self._running_since = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self._running_since = None

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Read the clock, count, and log when it is time."""
        logs_now = trainer.global_step % trainer.log_every_n_steps == 0  # type: ignore[attr-defined]
        if logs_now and torch.cuda.is_available():
            torch.cuda.synchronize()  # else the clock would time the launches
        assert self._running_since is not None
        now = time.perf_counter()
        self._seconds += now - self._running_since
        self._running_since = now
        # What the data know of this step on all ranks: no wait for the GPU, and filling counts nowhere.
        counts = data_of(trainer).counts(self._micro_step)
        self.tokens += counts.tokens
        self.source_tokens += counts.source_tokens
        rows, n_tokens = len(batch.tokens_BT), round(counts.tokens / trainer.world_size)
        self._counted_tokens += n_tokens
        self._batches += 1
        self._rows += rows
        length, share = round(n_tokens / rows), 1 - counts.source_tokens / counts.tokens
        if (length, share) != self._shape[:2]:  # blocks of text are all of one
            per_token = pl_module.model.flops_per_token(length, share)  # type: ignore[union-attr,operator]
            self._shape = length, share, per_token
        flops = self._shape[2] * n_tokens
        self._rates.update(
            time=self._seconds,
            batches=self._batches,
            samples=self._rows,
            lengths=self._counted_tokens,
            flops=int(flops),
        )
        if logs_now:
            self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rates = self._rates.compute()
        values = {
            "throughput/tokens": float(self.tokens),
            "throughput/source_tokens": float(self.source_tokens),
            "throughput/peak_memory_gb": peak_memory_bytes() / 1e9,
        }
        if "device/items_per_sec" in rates:
            values["throughput/tokens_per_s"] = rates["device/items_per_sec"] * trainer.world_size
        if "device/flops_per_sec" in rates:
            values["throughput/model_tflop_per_s"] = rates["device/flops_per_sec"] * trainer.world_size / 1e12
            if self._peak is not None:
                values[MFU] = rates["device/flops_per_sec"] / self._peak
        pl_module.log_dict(values)

    def peak_flop_per_s(self, trainer: Trainer) -> float | None:
        """Dense peak of the GPU in 16 bits; None: it is not known, or the run computes in other precisions."""
        device, policy = trainer.strategy.root_device, getattr(trainer.strategy, "policy", None)
        in_half = "16" in str(trainer.precision) or getattr(policy, "param_dtype", None) is torch.bfloat16
        if device.type != "cuda" or not in_half:
            return None
        found = devices.named(torch.cuda.get_device_name(device))
        return None if found is None else found.peak_flop_per_s

    @property
    def tokens_per_s(self) -> float:
        """Mean over all training steps of this process so far, on this rank."""
        return self._counted_tokens / self._seconds if self._seconds else float("nan")

    def state_dict(self) -> dict[str, Any]:
        """Counters of tokens and the window go on after a resume."""
        window = {
            "seconds": self._seconds,
            "batches": self._batches,
            "rows": self._rows,
            "counted_tokens": self._counted_tokens,
            "rates": {name: list(getattr(self._rates, name)) for name in WINDOWS},
        }
        return {"tokens": self.tokens, "source_tokens": self.source_tokens, "window": window}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the counters of the checkpoint."""
        self._window = state_dict.get("window", {})
        self.tokens, self.source_tokens = state_dict["tokens"], state_dict["source_tokens"]


def peak_memory_bytes() -> int:
    """Highest memory so far: of the GPU's allocator where there is one, else of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
