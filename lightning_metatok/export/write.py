"""Write a checkpoint of `fit` as a folder that transformers loads: weights, configuration, tokenizer, model card.

    DIR/model.safetensors  config.json  generation_config.json  tokenizer.json  tokenizer_config.json  README.md
    DIR/modeling_metatok.py    only for models that need this package: from_pretrained(DIR, trust_remote_code=True)

A model that transformers has itself (`families`) is written as one, and loads without this package; all others as
`MetaTokForCausalLM`. What cannot be expressed is refused before anything is written.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import GenerationConfig

from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.tokenizer import END_OF_TEXT
from lightning_metatok.errors import UserError
from lightning_metatok.export.card import model_card
from lightning_metatok.export.configuration import MetaTokConfig
from lightning_metatok.export.families import Family, family_of
from lightning_metatok.export.modeling import MetaTokForCausalLM
from lightning_metatok.lit.checkpoints import marks
from lightning_metatok.lit.checkpoints.contents import TOKENIZER_KEY, config_of, tokenizer_of, weights_of
from lightning_metatok.lit.checkpoints.io import read_state
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.build import own

REMOTE = "modeling_metatok"
REMOTE_CODE = '''"""Loads this folder with trust_remote_code=True; the model itself is in lightning-metatok."""

from lightning_metatok.export import MetaTokConfig, MetaTokForCausalLM

__all__ = ["MetaTokConfig", "MetaTokForCausalLM"]
'''


@dataclass(frozen=True)
class Trained:
    """What a checkpoint holds that an export needs."""

    model: MetaTransformer
    tokenizer: MetaTokenizer
    marks: marks.Marks | None
    step: int
    path: Path

    @classmethod
    def read(cls, path: Path, *, trust: bool = False) -> "Trained":
        """Read a checkpoint. Raises UserError as `load_trained` does."""
        checkpoint, source = read_state(path, key="--ckpt_path"), f"--ckpt_path={path}"
        if TOKENIZER_KEY not in checkpoint or "hyper_parameters" not in checkpoint:
            raise UserError(f"{source}: expected a checkpoint that carries its tokenizer, as `fit` writes them")
        if (base := checkpoint["hyper_parameters"].get("base")) is not None:
            raise UserError(
                f"{source}: model.base={base!r} cannot be exported: its blocks are another model's, which the "
                "checkpoint does not hold; `generate` and `evaluate` read it from where it lies"
            )
        config, tokenizer = config_of(checkpoint, source, trust=trust), tokenizer_of(checkpoint, source)
        if tokenizer.vocab_size > config.vocab_size:
            n_ids = tokenizer.vocab_size
            raise UserError(f"{source}: its tokenizer has {n_ids} ids, its model {config.vocab_size}; expected at most")
        model = own(config)
        model.load_state_dict(weights_of(checkpoint))
        step = int(checkpoint.get("global_step", 0))
        return cls(model.eval(), tokenizer, marks.marks_of(checkpoint, path, source), step, path)


@dataclass(frozen=True)
class Written:
    """What was written: the family that loads without this package, or why it needs it."""

    folder: Path
    family: Family | None
    why_own: str

    def says(self) -> str:
        """One line for the user."""
        if self.family is not None:
            return f"{self.folder}: a {self.family.name} model, which transformers loads without this package"
        return (
            f"{self.folder}: a lightning_metatok model ({self.why_own}); import lightning_metatok.export before "
            "AutoModelForCausalLM.from_pretrained"
        )


def check_expressible(config: TransformerConfig) -> None:
    """Raise `UserError` for a model whose input transformers cannot give, or that predicts no next token."""
    config.check_causal()
    with torch.device("meta"):
        positions = own(config).positions
    if positions.needs_task_ids:
        raise UserError(
            f"model.position={config.position!r} cannot be exported: its position ids come from a task, and "
            "transformers gives 0, 1, 2, ..."
        )


def chosen_family(config: TransformerConfig, shape: str) -> tuple[Family | None, str]:
    """Return the family to write as; None, and why it is this package's own class.

    Raises:
        UserError: a model of transformers is asked for, and this is none.
    """
    family, reason = family_of(config)
    if shape == "stock" and family is None:
        raise UserError(f"--shape=stock: {reason}; --shape=own writes it as a lightning_metatok model")
    return (None, "--shape=own") if shape == "own" else (family, reason)


def write(trained: Trained, to: Path, *, shape: str = "auto") -> Written:
    """Write the folder `to`.

    Args:
        shape: auto: one of transformers where it is one. stock: that or nothing. own: never.

    Raises:
        UserError: the model cannot be expressed, or the folder exists and holds something.
    """
    config = trained.model.config
    check_expressible(config)
    family, why_own = chosen_family(config, shape)
    check_folder(to)
    written = Written(to, family, why_own)
    partial = to.with_name(f".{to.name}.partial{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        model = stock_model(trained, family) if family is not None else own_model(trained)
        model.generation_config = generation_config(trained)
        model.save_pretrained(partial)
        if family is None:
            _add_remote_code(partial)
        write_tokenizer(partial, trained)
        (partial / "README.md").write_text(model_card(trained, written, commit()), encoding="utf-8")
        for file in partial.glob("*.safetensors"):  # which safetensors makes for its owner alone
            file.chmod((partial / "README.md").stat().st_mode)
        if to.is_dir():
            to.rmdir()
        os.replace(partial, to)
    except OSError as error:
        raise UserError(f"--to={to}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return written


def check_folder(to: Path) -> None:
    """Raise `UserError` where a folder cannot be made, or holds something already."""
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise UserError(f"--to={to}: expected a folder that does not exist yet, or is empty")


def stock_model(trained: Trained, family: Family) -> Any:
    """Return the model as transformers has it itself."""
    config = trained.model.config
    options = {**family.their_config(config), **special_ids(trained)}
    theirs = getattr(transformers, family.model_class)(getattr(transformers, family.config_class)(**options))
    theirs.load_state_dict(family.their_weights(trained.model.state_dict(), config))
    return theirs.eval()


def own_model(trained: Trained) -> MetaTokForCausalLM:
    """Return the model as this package's class of transformers."""
    stood = None if trained.marks is None else trained.marks.as_dict()
    first, *further = trained.tokenizer.meta_ids
    kinds = {"meta_token_ids": [first, *further]} if further else {}
    config = MetaTokConfig.of(
        trained.model.config, meta_token_id=first, **kinds, marks=stood, trust_classes=True, **special_ids(trained)
    )
    model = MetaTokForCausalLM(config)
    model.model.load_state_dict(trained.model.state_dict())
    return model.eval()


def special_ids(trained: Trained) -> dict[str, int]:
    """Ids of what begins, ends and fills up a text: documents are parted by <|endoftext|>, which does all three."""
    return dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), trained.tokenizer.eos_id)


def generation_config(trained: Trained) -> GenerationConfig:
    """Return what `generate` obeys: no meta-token, and no id that the tokenizer does not have."""
    unused = range(trained.tokenizer.vocab_size, trained.model.config.vocab_size)
    never = [*trained.tokenizer.meta_ids, *unused]
    return GenerationConfig(**special_ids(trained), suppress_tokens=never)


def write_tokenizer(folder: Path, trained: Trained) -> None:
    """Write what AutoTokenizer reads. Text that spells <|meta|> is that token there, as in `generate --prompt`."""
    trained.tokenizer.save(folder / "tokenizer.json")
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **dict.fromkeys(("bos_token", "eos_token", "pad_token"), END_OF_TEXT),
        "additional_special_tokens": list(trained.tokenizer.kinds),
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "model_max_length": trained.model.config.max_positions,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _add_remote_code(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    classes: Iterable[tuple[str, str]] = (
        ("AutoConfig", "MetaTokConfig"),
        ("AutoModelForCausalLM", "MetaTokForCausalLM"),
    )
    content["auto_map"] = {auto: f"{REMOTE}.{name}" for auto, name in classes}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / f"{REMOTE}.py").write_text(REMOTE_CODE, encoding="utf-8")


def commit() -> str | None:
    """Return the commit of this package's checkout; None: it is installed from elsewhere."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()
