"""Hugging Face, both ways: runs become folders that `transformers` loads, its checkpoints become starts of runs.

    configuration, modeling   a model of this project as a class of transformers, registered for the Auto classes
    cache                     our memory of generation, kept in a Cache of transformers
    families/                 shapes that transformers has itself, a family a file, both ways
    write, card, read         the folder that `export` writes, its model card, and what `import` makes of one

Importing this package registers the class:

    import lightning_metatok.export
    model = AutoModelForCausalLM.from_pretrained(DIR)
"""

from lightning_metatok.errors import UserError

try:
    import transformers  # noqa: F401
except ImportError as error:
    raise UserError("this needs transformers: pip install 'lightning-metatok[hf]'") from error

from lightning_metatok.export.configuration import MetaTokConfig
from lightning_metatok.export.insert import insert_meta
from lightning_metatok.export.modeling import MetaTokForCausalLM

__all__ = ["MetaTokConfig", "MetaTokForCausalLM", "insert_meta"]
