"""What a model is scored on must fit what it sees: the answer must be out of its sight, and what tells it in sight.

objective   pattern              scored on
next        causal               each token, where the one before it stands
masked      not causal           what is hidden, where it stands
"""

from lightning_metatok.data.preparation import DataConfig
from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig


def check_objective(model: TransformerConfig, data: DataConfig) -> None:
    """Raise `UserError` unless the model can be scored so."""
    if not data.masked:
        model.check_causal("data.objective='next': ")
    elif model.built_pattern.causal:
        raise UserError(
            f"data.objective='masked': expected model.pattern=bidirectional, which sees both sides of what is hidden, "
            f"not {model.pattern!r}"
        )
