"""A perceptron over the heads of scores, read along keys where its kernel is wider than 1 (FIRE and DAPE)."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from lightning_metatok.model.start import Start


class ScorePerceptron(nn.Module):
    """channels -> width -> heads at every pair [Q, K]; with `kernel` 3, of the neighbouring keys too.

    Both layers start as torch's linear layers do.
    """

    def __init__(
        self, channels: int, width: int, heads: int, activation: Callable[[Tensor], Tensor], kernel: int = 1
    ) -> None:
        super().__init__()
        self.activation = activation
        first, second = (nn.Conv2d(a, b, (1, kernel)) for a, b in ((channels, width), (width, heads)))
        self.weights = nn.ParameterList([first.weight, second.weight])
        self.biases = nn.ParameterList([first.bias, second.bias])

    def draw(self, start: Start) -> None:
        """Draw both layers, all between -1 / sqrt(n) and 1 / sqrt(n), n: numbers that one sum reads."""
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            most = weight[0].numel() ** -0.5
            start(f"weights.{layer}", weight, nn.init.uniform_, -most, most)
            start(f"biases.{layer}", bias, nn.init.uniform_, -most, most)

    def forward(self, x_BCQK: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return [B, N, Q, K]. With a kernel wider than 1, what is not `visible` reads as 0, in both layers.

        In both: what the first layer makes of the next key would else reach the second, and a score would depend on how
        many keys stand behind it.
        """
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                x_BCQK = self.activation(x_BCQK)
            if visible is not None:
                x_BCQK = x_BCQK.masked_fill(~visible, 0)
            dtype, padding = x_BCQK.dtype, (0, weight.shape[-1] // 2)
            x_BCQK = F.conv2d(x_BCQK, weight.to(dtype), bias.to(dtype), padding=padding)
        return x_BCQK
