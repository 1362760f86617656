"""Probes by name: what `lightning-metatok probe` can ask a checkpoint."""

from lightning_metatok.lit.probes.base import Finding, Probe, Subject

PROBES: dict[str, type[Probe]] = {}

__all__ = ["PROBES", "Finding", "Probe", "Subject"]
