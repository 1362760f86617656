"""What a callback may offer to those that gather it, so that neither knows the other by name.

    closing(console)    printed at the end, above the last lines      gathered by FinalTable
    charts()            charts for TensorBoard's first tab            gathered by Dashboard
    panels()            panels beside the losses in run.png           gathered by Dashboard
    facts(config)       what `arm.json` says of the run               gathered by ArmCard

A callback offers something by having the method; who gathers finds it among the trainer's callbacks.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol, TypeVar, runtime_checkable

from lightning.pytorch import Trainer
from matplotlib.axes import Axes
from rich.console import Console

from lightning_metatok.event_file import exactly
from lightning_metatok.model import TransformerConfig

Layout = dict[str, dict[str, list[Any]]]
"""Group -> title of a chart -> the chart, as `SummaryWriter.add_custom_scalars` takes it."""
Panel = Callable[[Axes], None]
"""Draws itself."""
Offer = TypeVar("Offer")


@runtime_checkable
class Closing(Protocol):
    """Has something to print when a run ends."""

    def closing(self, console: Console) -> None:
        """Print it, or nothing where nothing was measured."""


@runtime_checkable
class Charts(Protocol):
    """Logs scalars that belong together."""

    def charts(self) -> Layout:
        """Return the charts that overlay them."""


@runtime_checkable
class Panels(Protocol):
    """Has something to draw beside the losses of a run."""

    def panels(self) -> list[Panel]:
        """Return the panels, none where nothing was measured."""


@runtime_checkable
class CardFacts(Protocol):
    """Knows what readers of the run folder need to know."""

    def facts(self, config: TransformerConfig) -> dict[str, Any]:
        """Return keys of `arm.json`, for a model of that shape."""


def offered(trainer: Trainer, kind: type[Offer]) -> list[Offer]:
    """Return the callbacks that offer `kind`, in the order in which they run."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def chart(tags: Iterable[str]) -> list[Any]:
    """Return a chart with a line for each tag."""
    return ["Multiline", [exactly(tag) for tag in tags]]


def points(tag: str) -> list[Any]:
    """Return a chart of one tag, whose points TensorBoard does not smooth.

    It is a margin without width. A chart has one such tag: where a run has some tags of a chart and not the others,
    TensorBoard says "Missing Tags".
    """
    return ["Margin", [tag, tag, tag]]
