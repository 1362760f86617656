"""Probes by name: what `lightning-metatok probe` can ask a checkpoint."""

from lightning_metatok.lit.probes.base import Finding, Probe, Subject
from lightning_metatok.lit.probes.causal import Eviction, Knockout, Paths
from lightning_metatok.lit.probes.patching import Patching

PROBES: dict[str, type[Probe]] = {
    probe.name: probe
    for probe in (
        Eviction,
        Paths,
        Knockout,
        Patching,
    )
}

__all__ = ["PROBES", "Finding", "Probe", "Subject"]
