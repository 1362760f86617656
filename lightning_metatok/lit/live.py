"""A model of this project, as it stands in memory, for EleutherAI's lm-evaluation-harness: no export, no copy.

    loglikelihood          x context x context   continuation        scored: the continuation
    loglikelihood_rolling  end | text in windows of the longest sequence, each token scored once
    generate_until         x prompt x prompt     what is written     until a stop string, or the end of a document

Extra tokens (x) go into the context of a request by the rule of training; what is scored or written has none, as in
`generate`. A rolling window has no context but one token, and so has none. Requests are read in batches of like
lengths, and what several of them share, the same tokens before the last, is read once. Needs the extra `eval`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_metatok.data import InjectionRule, MetaTokenizer
from lightning_metatok.data.kinds import is_meta
from lightning_metatok.errors import UserError
from lightning_metatok.lit.sampling import complete_all
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.sampling import Sampling

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise UserError("evaluation needs lm-eval: pip install 'lightning-metatok[eval]'") from error

Pair = tuple[Any, Sequence[int], Sequence[int]]
"""What names a request, its context and its continuation."""


class LiveModel(TemplateLM):
    """Answers the requests of lm-eval."""

    def __init__(
        self,
        model: MetaTransformer,
        tokenizer: MetaTokenizer,
        *,
        rule: InjectionRule | None = None,
        batch_size: int = 16,
        max_length: int | None = None,
        max_new_tokens: int = 128,
        seed: int = 0,
    ) -> None:
        """Wrap a model, which is left in the mode that it is in.

        Args:
            model: on any device. tokenizer: its own.
            rule: how contexts get extra tokens; None: they get none.
            batch_size: requests that are read at once. max_length: longest sequence, extra tokens included; None: what
                the model was trained on.
            max_new_tokens: of `generate_until`, where a task does not say. seed: of the places of extra tokens.
        """
        super().__init__()
        self.model, self.own_tokenizer, self.rule, self.seed = model, tokenizer, rule, seed
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens
        limit = model.positions.max_positions
        self.max_length = max_length or min(model.config.max_positions, limit or model.config.max_positions)

    @property
    def eot_token_id(self) -> int:
        """What ends a document, and stands before one."""
        return self.own_tokenizer.eos_id

    @property
    def tokenizer_name(self) -> str:
        """What cached requests of lm-eval are told apart by."""
        return self.own_tokenizer.fingerprint()

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of a text, which never spells a special token."""
        return self.own_tokenizer.encode(string)

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Sum of the log-likelihoods of each whole text, in nats."""
        pairs: list[Pair] = []
        for i, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(ids, self.eot_token_id, self.max_length, context_len=1)
            pairs += [(i, *make_disjoint_window(window)) for window in windows]
        sums = [0.0] * len(requests)
        for (i, _, _), (found, _) in zip(pairs, self._scored(pairs, rule=None), strict=True):
            sums[i] += found
        return sums

    def _loglikelihood_tokens(
        self, requests: Sequence[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        return self._scored(requests, rule=self.rule)

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """What the model writes after each prompt."""
        return [self._written(*request.args) for request in requests]

    def _written(self, prompt: str, options: dict[str, Any]) -> str:
        until = options.get("until") or []
        stops = [until] if isinstance(until, str) else [stop for stop in until if stop]
        n_new = int(options.get("max_gen_toks", self.max_new_tokens))
        ids = self.own_tokenizer.encode(prompt)
        room = max(1, self._source_room(self.max_length - n_new))
        temperature = float(options.get("temperature", 1.0)) if options.get("do_sample", False) else 0.0
        (done,) = complete_all(
            self.model,
            self.own_tokenizer,
            [self.own_tokenizer.decode(ids[-room:])],
            Sampling(temperature, seed=self.seed),
            rule=self.rule,
            max_new_tokens=n_new,
            stop=stops,
        )
        return done.text

    # -- scoring

    def _source_room(self, positions: int) -> int:
        """How many source tokens fit into so many positions, with the extra tokens that they get."""
        if self.rule is None:
            return positions
        room = positions
        while room > 1 and self.rule.total_length(room) > positions:
            room -= 1
        return room

    def _row(self, context: Sequence[int], continuation: Sequence[int], rule: InjectionRule | None) -> list[int]:
        """All tokens of a request, extra ones in its context; cut from the left to what the model can read."""
        limit = self.max_length + 1  # the last token is not read
        n = limit - len(continuation)
        if n < 1:
            return list(continuation)[-limit:]
        kept = list(context)[-(n if rule is None else max(1, self._source_room(n))) :]
        return [*self._with_extra(kept, rule), *continuation]

    def _with_extra(self, ids: list[int], rule: InjectionRule | None) -> list[int]:
        if rule is None or not set(self.own_tokenizer.meta_ids).isdisjoint(ids):
            return ids
        injected = rule.in_prompt(
            torch.tensor([ids]),
            meta_id=self.own_tokenizer.meta_ids,
            seed=self.seed,
            index=0,
            after_ids=self.own_tokenizer.punctuation_ids,
        )
        found: list[int] = injected.tokens_BT[0].tolist()
        return found

    @torch.no_grad()
    def _scored(self, requests: Sequence[Pair], rule: InjectionRule | None) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation, and whether the model would have written it."""
        rows = [self._row(context, continuation, rule) for _, context, continuation in requests]
        sharing: dict[tuple[int, ...], list[int]] = {}
        for i, row in enumerate(rows):
            sharing.setdefault(tuple(row[:-1]), []).append(i)
        order = sorted(sharing, key=lambda read: (-len(read), read))
        found: list[tuple[float, bool]] = [(0.0, False)] * len(rows)
        was_training = self.model.training
        self.model.eval()
        try:
            for first in range(0, len(order), self.batch_size):
                batch = order[first : first + self.batch_size]
                hidden_BTD = self._hidden(batch)
                for read, hidden_TD in zip(batch, hidden_BTD, strict=True):
                    # All that share it end in one token each, or are the same.
                    n = max(min(len(requests[i][2]), len(rows[i])) for i in sharing[read])
                    logits_LV = self.model.logits(hidden_TD[len(read) - n : len(read)]).float()
                    for i in sharing[read]:
                        found[i] = _of_continuation(logits_LV, requests[i][2])
        finally:
            self.model.train(was_training)
        return found

    def _hidden(self, batch: Sequence[Sequence[int]]) -> Tensor:
        """Hidden states [B, T, D]; shorter rows are filled up behind their end, where nothing sees it."""
        device = self.model.head_weight.device
        longest = max(map(len, batch))
        tokens_BT = torch.tensor([[*row, *[self.eot_token_id] * (longest - len(row))] for row in batch], device=device)
        extra_BT = is_meta(tokens_BT, self.own_tokenizer.meta_ids)
        hidden_BTD: Tensor = self.model(tokens_BT, extra_BT if bool(extra_BT.any()) else None, return_hidden=True)
        return hidden_BTD


def _of_continuation(logits_LV: Tensor, ids: Sequence[int]) -> tuple[float, bool]:
    """Log-likelihood of the last tokens of a row and whether they are the likeliest."""
    ids_L = torch.tensor(list(ids)[-len(logits_LV) :], device=logits_LV.device)
    logits_LV = logits_LV[len(logits_LV) - len(ids_L) :]
    likely_L = logits_LV.log_softmax(dim=-1).gather(1, ids_L[:, None])[:, 0]
    return float(likely_L.sum()), bool((logits_LV.argmax(dim=-1) == ids_L).all())
