"""The loss on text that decided nothing: no checkpoint was chosen by it, no schedule, and nobody watched it fall."""

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_metatok.console import printer
from lightning_metatok.lit.context_loss import ContextLoss
from lightning_metatok.lit.data.protocol import text_of
from lightning_metatok.lit.metrics import SourceTokenLoss


class HeldOutText(Callback):
    """At the end of a fit, log `loss/test` and `bits_per_byte/test` of the last weights, once, and print them.

    Beside them `loss_behind/N`, the loss by how many source tokens of its document stand before a token.

    The blocks are those that the verb `test` reads; nothing where the corpus has no text to test on.
    """

    @torch.no_grad()
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, on all ranks together."""
        data = text_of(trainer)
        if not data.can_test:
            return
        metric, by_context = SourceTokenLoss().to(pl_module.device), ContextLoss().to(pl_module.device)
        was_training = pl_module.training
        pl_module.eval()
        for batch in data.test_dataloader():
            on_device = batch.to(pl_module.device)
            with trainer.precision_plugin.forward_context():
                nll_BT = pl_module.nll(on_device)  # type: ignore[operator]
            metric.update(nll_BT, on_device.targets_BT, pl_module.bytes_V)  # type: ignore[arg-type]
            by_context.update(nll_BT, on_device)
        pl_module.train(was_training)
        # As exact as Lightning logs what `test` measures.
        values = {name: value.float().item() for name, value in metric.compute().items()}
        behind = {name: value.float().item() for name, value in by_context.compute().items()}
        if not trainer.is_global_zero:
            return
        masked = data.config.masked
        bits = {} if masked else {"bits_per_byte/test": values["bits_per_byte"]}
        for logger in trainer.loggers:
            logger.log_metrics({"loss/test": values["nats"], **bits, **behind}, step=trainer.global_step)
        unit = "hidden token" if masked else f"source token, {values['bits_per_byte']:.4f} bits per byte"
        printer().print(
            f"test loss {values['nats']:.4f} nats per {unit}: text that nothing was chosen by",
            highlight=False,
            soft_wrap=True,
        )
