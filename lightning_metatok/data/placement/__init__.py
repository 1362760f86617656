"""Where extra tokens stand in text: one rule a file, one interface for all (`base.Placement`).

`data.meta_placement` names one, `data.meta_placement_options` holds its options. A dotted path works, too:
`--data.meta_placement=my_lab.places.EverySentence`.
"""

from collections.abc import Mapping
from typing import Any

from lightning_metatok import options as stated
from lightning_metatok.data.placement.base import Placement, Sources, Written, positions_within
from lightning_metatok.data.placement.chunk_end import ChunkEnds
from lightning_metatok.data.placement.ends import Prefix, Suffix
from lightning_metatok.data.placement.fixed import FixedPlaces
from lightning_metatok.data.placement.periodic import PeriodicPlaces
from lightning_metatok.data.placement.punctuation import BehindPunctuation
from lightning_metatok.data.placement.random import RandomPlaces
from lightning_metatok.registry import Registry

KEY = "data.meta_placement"
PLACEMENTS: Registry[Placement] = Registry(
    KEY,
    Placement,
    {
        "random": RandomPlaces,
        "periodic": PeriodicPlaces,
        "punctuation": BehindPunctuation,
        "chunk_end": ChunkEnds,
        "prefix": Prefix,
        "suffix": Suffix,
        "fixed": FixedPlaces,
    },
    group="placements",
)


def build(name: str, options: Mapping[str, Any] = {}) -> Placement:
    """Build the placement `name`; `options` are its own.

    Raises:
        UserError: no placement has that name, or it cannot take these options.
    """
    kind = PLACEMENTS.resolve(name)
    stated.check(KEY, name, kind, options)
    return kind(**options)


__all__ = ["PLACEMENTS", "Placement", "Sources", "Written", "build", "positions_within"]
