"""A logger with an argument that is a mapping."""

from lightning.pytorch.loggers import CSVLogger


class Tagged(CSVLogger):
    """Takes tags."""

    def __init__(self, name: str = "x", tags: dict[str, int] | None = None) -> None:
        super().__init__(".", name=name)
        self.tags = tags
