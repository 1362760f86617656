"""What a model is scored on must fit what it sees: the answer must be out of its sight, and what tells it in sight.

objective   pattern              scored on
next        causal               each token, where the one before it stands
next        sees whole prompts   answers alone (`data.task`), which stand behind the first mark
masked      not causal           what is hidden, where it stands
"""

from lightning_metatok.data.preparation import DataConfig
from lightning_metatok.errors import UserError
from lightning_metatok.model import TransformerConfig


def check_objective(model: TransformerConfig, data: DataConfig, *, answers_only: bool = False) -> None:
    """Raise `UserError` unless the model can be scored so; `answers_only`: on answers behind prompts alone."""
    if not data.masked:
        check = model.check_writes if answers_only else model.check_causal
        check("data.objective='next': ")
    elif model.built_pattern.causal or model.built_pattern.prompts:
        raise UserError(
            f"data.objective='masked': expected model.pattern=bidirectional, which sees both sides of what is hidden, "
            f"not {model.pattern!r}"
        )
