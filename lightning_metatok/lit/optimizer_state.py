"""How much an optimiser keeps beside the weights, found by a step on tensors without memory.

adamw      two moments of each parameter                      8 bytes a parameter in float32
muon       one of hidden matrices, two of the rest            4 to 8
torch.optim.SGD, schedulefree.AdamWScheduleFree, ...          0 and 8: what they make in that step
"""

import torch
from torch import nn

from lightning_metatok.lit import optimizers
from lightning_metatok.lit.optim import OptimizerConfig, build_optimizer


def state_bytes(model: nn.Module, config: OptimizerConfig) -> int | None:
    """Return the bytes of the state of the optimiser that `config` describes, once it has stepped; not single numbers.

    Args:
        model: on the meta device; its dtype is that of the weights that train.

    Returns:
        None where the optimiser cannot step without numbers, as Adafactor, which asks for a norm.

    Raises:
        UserError: what `optimizers.build` raises.
    """
    with torch.device("cpu"):  # where optimisers count their steps, whatever device a caller builds on
        optimizer, _ = build_optimizer(model, config)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        optimizers.train([optimizer])
        try:
            optimizer.step()
        except (RuntimeError, TypeError, ValueError):
            return None
        finally:
            for weight in weights:
                weight.grad = None
    kept = (value for state in optimizer.state.values() for value in state.values())
    return sum(value.nbytes for value in kept if isinstance(value, torch.Tensor) and value.dim())
