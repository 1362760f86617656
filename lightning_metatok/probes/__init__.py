"""Probes by name: what `lightning-metatok probe` can ask a checkpoint, in the order it asks.

A probe of this package stands in `OWN`; those of others are asked for by a dotted path or an entry point.
"""

from lightning_metatok.probes.attention import Attention
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.causal import Eviction, Knockout, Paths
from lightning_metatok.probes.cosine import Cosine
from lightning_metatok.probes.described import Described
from lightning_metatok.probes.lens import Lens
from lightning_metatok.probes.patching import Patching
from lightning_metatok.probes.rate_distortion import RateDistortion
from lightning_metatok.probes.readout import Readout
from lightning_metatok.probes.sharpening import Sharpening
from lightning_metatok.probes.updates import Updates
from lightning_metatok.registry import Registry

OWN: tuple[type[Probe], ...] = (
    Eviction,
    Paths,
    Knockout,
    Patching,
    Described,
    Attention,
    Updates,
    Cosine,
    Lens,
    Readout,
    Sharpening,
    RateDistortion,
)
PROBES: Registry[Probe] = Registry(
    "probes",
    Probe,
    {probe.name: probe for probe in OWN},
    group="probes",
)

__all__ = ["PROBES", "Finding", "Probe", "Subject"]
