"""Probes by name: what `lightning-metatok probe` can ask a checkpoint."""

from lightning_metatok.lit.probes.base import Finding, Probe, Subject
from lightning_metatok.lit.probes.rate_distortion import RateDistortion
from lightning_metatok.lit.probes.sharpening import Sharpening

PROBES: dict[str, type[Probe]] = {probe.name: probe for probe in (Sharpening, RateDistortion)}

__all__ = ["PROBES", "Finding", "Probe", "Subject"]
