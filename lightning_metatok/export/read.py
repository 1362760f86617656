"""Read a model of Hugging Face as a start for `fit`: weights, tokenizer, configuration.

    DIR/start.ckpt      what `--model.init_from` takes, and every verb that reads a checkpoint
    DIR/tokenizer.json  the model's, with <|meta|> and <|endoftext|>
    DIR/config.yaml     model and tokenizer as options, to be laid over an experiment such as conf/base.yaml

A mechanism that is added starts with zeros (`model.unchanged`), and the result is compared with transformers' own
logits before anything is written. Ids that the tokenizer gets anew, <|meta|> first of all, start as the mean of all
rows; a new <|endoftext|> as the row of the token that ended texts before.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from lightning_metatok import hub
from lightning_metatok.data import MetaTokenizer
from lightning_metatok.data.kinds import is_meta
from lightning_metatok.errors import UserError
from lightning_metatok.export.configuration import MODEL_TYPE
from lightning_metatok.export.families import FAMILIES
from lightning_metatok.export.write import check_folder
from lightning_metatok.lit.checkpoints import marks
from lightning_metatok.lit.checkpoints.contents import PREFIX, TOKENIZER_KEY
from lightning_metatok.lit.checkpoints.io import write_state
from lightning_metatok.lit.optim import OptimizerConfig
from lightning_metatok.model import MetaTransformer, TransformerConfig
from lightning_metatok.model.build import own
from lightning_metatok.model.unchanged import start_unchanged

KEY = "--from"
TOLERANCE = 1e-3
"""Of logits, relative to the largest: float32 with its operations grouped otherwise, over many layers."""
CHECKPOINT = "start.ckpt"
Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Start:
    """What was read. `difference`: the largest between our logits and theirs, on random tokens."""

    model: MetaTransformer
    tokenizer: MetaTokenizer
    marks: Mapping[str, Any] | None
    family: str
    difference: float


def read(name: str, added: Mapping[str, Any] | None = None, *, kinds: int | None = None, trust: bool = False) -> Start:
    """Read a model.

    Args:
        name: a folder, or a name on the hub.
        added: fields of `TransformerConfig` that are other than there: mechanism, pattern and their options.
        kinds: of meta-tokens; None: those that its tokenizer has. New ones begin as the mean of all rows.
        trust: import classes of other packages that a model of ours names.

    Raises:
        UserError: it cannot be loaded, its architecture is none of `FAMILIES`, it has what our model has not, its
            tokenizer has more ids than its weights, or it would not start unchanged.
    """
    config = hub.config_of(name, KEY)
    family = FAMILIES.get(config.model_type)
    if family is None and config.model_type != MODEL_TYPE:
        known = ", ".join((*FAMILIES, MODEL_TYPE))
        raise UserError(f"{KEY}={name}: architecture {config.model_type!r}: expected one of {known}")
    if config.model_type == MODEL_TYPE:
        config.trust_classes = trust
        options = dict(config.transformer)
    else:
        assert family is not None
        options = family.our_options(config.to_dict())
        options.setdefault("mechanism", "none")
    tokenizer, n_before = _tokenizer(name, options["vocab_size"], own=config.model_type == MODEL_TYPE)
    tokenizer = tokenizer if kinds is None else tokenizer.with_kinds(kinds)
    theirs = hub.model_of(name, KEY, config)
    plain = TransformerConfig(**options)
    if family is None:
        weights: Weights = {key.removeprefix(PREFIX): value for key, value in theirs.state_dict().items()}
    else:
        weights = family.our_weights(theirs.state_dict(), plain)
    old_end = config.eos_token_id[0] if isinstance(config.eos_token_id, list) else config.eos_token_id
    shape = TransformerConfig(**{**options, **(added or {}), "vocab_size": max(plain.vocab_size, tokenizer.vocab_size)})
    model = _filled(shape, weights, n_before, tokenizer, old_end)
    if shape.mechanism != plain.mechanism or shape.mechanism_options != plain.mechanism_options:
        start_unchanged(model)
    found = _difference(model, theirs, n_before, tokenizer.meta_ids)
    return Start(model.eval(), tokenizer, getattr(config, "marks", None), config.model_type, found)


def _tokenizer(name: str, n_weights: int, *, own: bool) -> tuple[MetaTokenizer, int]:
    """The tokenizer with both special tokens, and how many ids it had before these."""
    text = hub.tokenizer_json(name, KEY)
    source = f"{KEY}={name}: tokenizer.json"
    if own or hub.is_of_words(text):
        try:
            tokenizer = MetaTokenizer.from_json(text)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{source}: cannot be loaded ({' '.join(str(error).split())[:200]})") from error
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "tokenizer.json"
            path.write_text(text, encoding="utf-8")
            try:
                tokenizer = MetaTokenizer.from_file(path, add_special_tokens=True)
            except UserError as error:
                raise UserError(str(error).replace(f"data.tokenizer={str(path)!r}", source)) from error
    n_before = tokenizer.vocab_size - len(tokenizer.added)
    if n_before > n_weights:
        raise UserError(
            f"{source} has ids up to {n_before - 1}, the weights {n_weights} rows: this tokenizer is not that model's"
        )
    return tokenizer, n_before


def _filled(
    config: TransformerConfig, weights: Weights, n_before: int, tokenizer: MetaTokenizer, old_end: int | None
) -> MetaTransformer:
    model = own(config, seed=0)
    state = model.state_dict()
    for key in ("embedding.weight", "head.weight"):
        if key in state:
            weights[key] = _grown(weights[key], len(state[key]), n_before, tokenizer, old_end)
    added = {key for key in state if key not in weights}
    of_mechanism = model.weights_of_mechanism().keys()
    biases = {key for key in added if key.endswith(".bias")}
    if unknown := sorted(added - of_mechanism - biases) or sorted(weights.keys() - state.keys()):
        raise UserError(f"{KEY}: weights do not fit the configuration; missing or left over: {', '.join(unknown[:3])}")
    model.load_state_dict({**{key: state[key] for key in added}, **weights})
    return model


def _grown(rows_VD: Tensor, n: int, n_before: int, tokenizer: MetaTokenizer, old_end: int | None) -> Tensor:
    """A table with rows for new ids; those that the tokenizer had keep theirs."""
    used = rows_VD[:n_before]
    found = torch.cat((rows_VD, used.mean(dim=0).expand(max(0, n - len(rows_VD)), -1))).clone()
    for id in range(n_before, tokenizer.vocab_size):
        is_end = id == tokenizer.eos_id and old_end is not None and old_end < len(used)
        found[id] = used[old_end] if is_end else used.mean(dim=0)
    return found


@torch.no_grad()
def _difference(model: MetaTransformer, theirs: Any, n_before: int, meta_ids: Sequence[int]) -> float:
    """The largest difference of logits at ids that both have; refuse one that is no rounding."""
    tokens_BT = torch.randint(n_before, (2, 16), generator=torch.Generator().manual_seed(0))
    model.eval()
    logits = model(tokens_BT, is_meta(tokens_BT, meta_ids)), theirs(tokens_BT).logits
    ours, expected = (found[..., :n_before] for found in logits)
    found = float((ours - expected).abs().max())
    if not found <= TOLERANCE * max(1.0, float(expected.abs().max())):
        raise UserError(
            f"{KEY}: logits differ by {found:.3g} from those of transformers; expected the same function, so nothing "
            "is written (a mechanism or pattern that changes what is there?)"
        )
    return found


def write_start(start: Start, to: Path) -> None:
    """Write the folder `to`. Raises `UserError` where it cannot be made, or holds something."""
    check_folder(to)
    partial = to.with_name(f".{to.name}.partial{os.getpid()}")
    config = asdict(start.model.config)
    checkpoint = {
        "state_dict": {PREFIX + key: value for key, value in start.model.state_dict().items()},
        "hyper_parameters": {**config, "optimizer": asdict(OptimizerConfig()), "compile": False},
        TOKENIZER_KEY: start.tokenizer.to_json(),
        "global_step": 0,
        **({marks.KEY: dict(start.marks)} if start.marks is not None else {}),
    }
    place, n_kinds = to.resolve(), len(start.tokenizer.kinds)
    run = {
        "model": {**config, "init_from": str(place / CHECKPOINT)},
        "data": {"tokenizer": str(place / "tokenizer.json"), **({"meta_kinds": n_kinds} if n_kinds > 1 else {})},
    }
    head = (
        f"# A start from a model of Hugging Face ({start.family}): lay it over an experiment, such as conf/base.yaml.\n"
    )
    try:
        partial.mkdir(parents=True)
        write_state(checkpoint, partial / CHECKPOINT)
        start.tokenizer.save(partial / "tokenizer.json")
        (partial / "config.yaml").write_text(head + yaml.safe_dump(json.loads(json.dumps(run)), sort_keys=False))
        if to.is_dir():
            to.rmdir()
        os.replace(partial, to)
    except OSError as error:
        raise UserError(f"--to={to}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
