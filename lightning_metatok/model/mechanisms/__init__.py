"""What extra tokens do in a block: one mechanism a file, one interface for all (`base.Mechanism`)."""

from lightning_metatok.model.axis import Axis
from lightning_metatok.model.mechanisms.base import Between, Mechanism
from lightning_metatok.model.mechanisms.hils import HiLS
from lightning_metatok.model.mechanisms.landmark import LandmarkAttention
from lightning_metatok.model.mechanisms.location import Location
from lightning_metatok.model.mechanisms.matched import MatchedAttention
from lightning_metatok.model.mechanisms.meta import MetaAttention
from lightning_metatok.model.mechanisms.none import NoMechanism
from lightning_metatok.model.mechanisms.omninet import OmniNet
from lightning_metatok.model.mechanisms.own_qkv import OwnQKV
from lightning_metatok.model.mechanisms.unfold import Unfold

MECHANISMS: dict[str, type[Mechanism]] = {
    "none": NoMechanism,
    "meta": MetaAttention,
    "matched": MatchedAttention,
    "landmark": LandmarkAttention,
    "hils": HiLS,
    "own_qkv": OwnQKV,
    "unfold": Unfold,
    "omninet": OmniNet,
    "location": Location,
}
AXIS = Axis("mechanism", Mechanism, MECHANISMS)
build = AXIS.build


__all__ = ["AXIS", "MECHANISMS", "Between", "Mechanism", "build"]
