"""Text in, text out: meta-tokens put into the prompt by rule, then continued by the model."""

from dataclasses import replace

import torch

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.model import MetaTransformer, generate


@torch.no_grad()
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

    A prompt that already holds `<|meta|>` is left as written; otherwise `rule` puts meta-tokens into it, growing it.
    An empty prompt starts a new document. The model never writes a meta-token.

    Returns:
        The prompt and its continuation, without the token that ends it; meta-tokens are shown only with `keep_meta`.

    Raises:
        UserError: prompt and continuation are longer than the table of positions.
    """
    device = next(model.parameters()).device
    ids = tokenizer.encode_prompt(prompt) or [tokenizer.eos_id]
    tokens_BT = torch.tensor([ids])
    meta_mask_BT = tokens_BT == tokenizer.meta_id
    if rule is not None and rule.where.by_share and not meta_mask_BT.any():  # a prompt has no fixed slots
        injected = replace(rule, length="grow").apply(
            tokens_BT,
            block_length=tokens_BT.shape[1],
            meta_id=tokenizer.meta_id,
            seed=seed,
            index=0,
            after_ids=tokenizer.punctuation_ids,
        )
        tokens_BT, meta_mask_BT = injected.tokens_BT, injected.meta_mask_BT
    out_BT = generate(
        model,
        tokens_BT.to(device),
        meta_mask_BT.to(device),
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        forbidden_ids=(tokenizer.meta_id, *range(tokenizer.vocab_size, model.config.vocab_size)),
        stop_id=tokenizer.eos_id,
    )
    written = out_BT[0, tokens_BT.shape[1] :].tolist()
    if tokenizer.eos_id in written:
        written = written[: written.index(tokenizer.eos_id)]
    # What stands for an empty prompt was not the user's.
    asked = [id for id in tokens_BT[0].tolist() if prompt or id != tokenizer.eos_id]
    return tokenizer.decode([*asked, *written], skip_meta=not keep_meta)
