"""Lightning's Trainer with one more precision: `auto`, what this machine computes fastest."""

from typing import Any

import lightning

from lightning_metatok.runtime import resolve_precision


class Trainer(lightning.Trainer):
    """`lightning.Trainer`, with ``precision="auto"`` as the default.

    Lightning's own sharding of the data is off: a batch is a function of (seed, step, rank) already.
    """

    def __init__(self, precision: str = "auto", use_distributed_sampler: bool = False, **kwargs: Any) -> None:
        """Build the trainer.

        Args:
            precision: `auto` (bf16-mixed where the GPU or the CPU has bf16 instructions, else 32-true) or any
                precision that Lightning knows.
            use_distributed_sampler: Leave it off; see above.
        """
        kwargs["use_distributed_sampler"] = use_distributed_sampler
        super().__init__(precision=resolve_precision(precision), **kwargs)  # type: ignore[arg-type]
