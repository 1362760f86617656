"""Text in, text out: meta-tokens put into the prompt by rule, then continued by the model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.data.kinds import is_meta, next_ids
from lightning_metatok.data.while_writing import WhileWriting
from lightning_metatok.lit.writing import Writing
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.generate import stream
from lightning_metatok.model.memory import Memory
from lightning_metatok.model.sampling import Sampling

End = Literal["document", "stop", "length"]


@dataclass(frozen=True)
class Completion:
    """A prompt as it is shown, and what was written behind it.

    Attributes:
        ended: by the end of a document, by a stop string, or by `max_new_tokens`.
        n_prompt, n_new: tokens read and tokens written, meta-tokens among them, without the one that ends a document.
    """

    prompt: str
    text: str
    ended: End
    n_prompt: int
    n_new: int


def complete(
    model: MetaTransformer,
    tokenizer: MetaTokenizer,
    prompt: str,
    *,
    rule: InjectionRule | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    keep_meta: bool = False,
) -> str:
    """Continue `prompt` until the end of a document or `max_new_tokens`.

    Returns:
        The prompt and its continuation, without the token that ends it; meta-tokens are shown only with `keep_meta`.

    Raises:
        UserError: as `complete_all` does.
    """
    sampling = Sampling(temperature, top_k, top_p, seed=seed)
    (done,) = complete_all(
        model, tokenizer, [prompt], sampling, rule=rule, max_new_tokens=max_new_tokens, keep_meta=keep_meta
    )
    return done.prompt + done.text


def complete_all(
    model: MetaTransformer,
    tokenizer: MetaTokenizer,
    prompts: Sequence[str],
    sampling: Sampling,
    *,
    rule: InjectionRule | None = None,
    max_new_tokens: int = 64,
    memory: Memory | None = None,
    meta_while_writing: bool = False,
    stop: Sequence[str] = (),
    keep_meta: bool = False,
    show: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """Continue each prompt until the end of a document, a stop string or `max_new_tokens`.

    A prompt that already holds `<|meta|>` is left as written; otherwise `rule` puts meta-tokens into it, growing it.
    An empty prompt starts a new document. The model never chooses a meta-token. What a prompt gets depends on its place
    in the list and on the seed, not on the other prompts.

    Args:
        memory: what is kept of earlier tokens; None: all that the model's pattern needs.
        meta_while_writing: `rule` puts meta-tokens into the continuation, too.
        stop: strings that end a continuation; they are not part of it.
        keep_meta: show meta-tokens.
        show: called with a prompt's place and with each piece of its text as soon as it is known, the prompt first.

    Raises:
        UserError: prompt and continuation are longer than the table of positions, or the model needs the tokens that
            `memory` forgets.
    """
    seed = 0 if sampling.seed is None else sampling.seed
    done = []
    for place, prompt in enumerate(prompts):
        tokens_1T, meta_mask_1T = _read(tokenizer, prompt, rule, seed, place)
        # What stands for an empty prompt was not the user's.
        shown = tokenizer.decode(tokens_1T[0].tolist() if prompt else [], skip_meta=not keep_meta)
        writing = Writing(lambda ids: tokenizer.decode(ids, skip_meta=not keep_meta), tokens_1T[0].tolist(), stop)
        send = _sender(show, place)
        send(shown)
        marks = None
        if meta_while_writing and rule is not None and not model.positions.predicts_ids:
            n_extra = int(meta_mask_1T.sum())
            n_source, after_ids = tokens_1T.shape[1] - n_extra, tokenizer.punctuation_ids
            marks = WhileWriting(rule, n_source, n_extra, seed=seed, index=place, after_ids=after_ids)
        ended = _write(
            model, tokenizer, tokens_1T, meta_mask_1T, sampling, max_new_tokens, memory, place, writing, send, marks
        )
        send(writing.end())
        done.append(Completion(shown, writing.text, ended, tokens_1T.shape[1], len(writing.ids)))
    return done


def _sender(show: Callable[[int, str], None] | None, place: int) -> Callable[[str], None]:
    def send(text: str) -> None:
        if text and show is not None:
            show(place, text)

    return send


def _write(
    model: MetaTransformer,
    tokenizer: MetaTokenizer,
    tokens_1T: Tensor,
    meta_mask_1T: Tensor,
    sampling: Sampling,
    max_new_tokens: int,
    memory: Memory | None,
    place: int,
    writing: Writing,
    send: Callable[[str], None],
    marks: WhileWriting | None,
) -> End:
    device = next(model.parameters()).device
    extra: list[int] = []

    def extra_next(next_1: Tensor) -> list[int]:
        nonlocal extra
        if marks is not None:
            before = marks.n_extra
            extra = next_ids(tokenizer.meta_ids, before, marks.take(int(next_1)))
        return extra

    steps = stream(
        model,
        tokens_1T.to(device),
        meta_mask_1T.to(device),
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        forbidden_ids=(*tokenizer.meta_ids, *range(tokenizer.vocab_size, model.config.vocab_size)),
        stop_id=tokenizer.eos_id,
        memory=memory,
        samples=[place],
        extra_next=None if marks is None else extra_next,
    )
    for next_1 in steps:
        if (id := int(next_1)) == tokenizer.eos_id:
            return "document"
        send(writing.take(id))
        if writing.stopped:
            return "stop"
        for id in extra:
            send(writing.take(id))
    return "length"


def _read(
    tokenizer: MetaTokenizer, prompt: str, rule: InjectionRule | None, seed: int, place: int
) -> tuple[Tensor, Tensor]:
    """Ids and meta mask [1, T] of a prompt."""
    tokens_1T = torch.tensor([tokenizer.encode_prompt(prompt) or [tokenizer.eos_id]])
    meta_mask_1T = is_meta(tokens_1T, tokenizer.meta_ids)
    if rule is None or meta_mask_1T.any():
        return tokens_1T, meta_mask_1T
    injected = rule.in_prompt(
        tokens_1T, meta_id=tokenizer.meta_ids, seed=seed, index=place, after_ids=tokenizer.punctuation_ids
    )
    return injected.tokens_BT, injected.meta_mask_BT
