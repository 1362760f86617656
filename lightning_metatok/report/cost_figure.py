"""Tokens/s and efficiency against the number of GPUs, a line a sharding mode."""

from pathlib import Path

from matplotlib.figure import Figure

from lightning_metatok.palette import BLUE, GREEN, ORANGE
from lightning_metatok.pictures import as_png
from lightning_metatok.report.cost_model import HALF, MODES, Job, speed
from lightning_metatok.report.hardware import Network

STYLES = {"ddp": (BLUE, "o", "-"), "zero2": (GREEN, "s", "--"), "fsdp2": (ORANGE, "^", ":")}
"""Colour (Okabe and Ito), marker and dashes of a mode."""


def draw(
    job: Job,
    single: float,
    network: Network,
    name: str,
    path: Path,
) -> None:
    """Write a PNG over every power of two that divides the global batch; arguments as of `cost_model.speed`."""
    gpus = [n for n in (2**k for k in range(job.global_batch.bit_length())) if job.global_batch % n == 0]
    figure = Figure(figsize=(8.4, 3.6), dpi=120, layout="constrained")
    rates, shares = figure.subplots(1, 2)
    rates.plot(gpus, [single * n for n in gpus], color="0.6", linewidth=1, label="n times one GPU")
    for mode in MODES:
        found = [step for n in gpus if (step := speed(job, mode, n, single, network)) is not None]
        colour, marker, dashes = STYLES[mode]
        options = {"color": colour, "marker": marker, "linestyle": dashes, "markersize": 5, "fillstyle": "none"}
        rates.plot(gpus, [step.tokens_per_s for step in found], label=mode, **options)
        shares.plot(gpus, [step.efficiency for step in found], label=mode, **options)
    rates.set_yscale("log")
    rates.set_ylabel("tokens/s")
    rates.set_title(f"{name}: speed, by the cost model", fontsize=10)
    shares.axhline(HALF, color="0.6", linewidth=1)
    shares.set_ylim(0, 1.05)
    shares.set_ylabel("efficiency (speed / n times one GPU)")
    shares.set_title(f"{job.global_batch} blocks of {job.length:,} tokens a step, shared by all", fontsize=10)
    for axes in (rates, shares):
        axes.set_xscale("log", base=2)
        axes.set_xticks(gpus, [str(n) for n in gpus], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("GPUs")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
        if network.gpus_per_node < gpus[-1]:
            axes.axvline(network.gpus_per_node, color="0.8", linestyle="--", linewidth=1, zorder=0)
            axes.annotate(
                "one node",
                (network.gpus_per_node, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="bottom",
                fontsize=8,
                color="0.4",
            )
    path.write_bytes(as_png(figure))
