"""Sharpening: does a boost at meta-tokens sharpen self-attention, as the theorem says where its condition holds?

    condition     alpha_j* > exp(-H): share of rows where any boost of the strongest meta key lowers entropy
    log_odds      logit(attention to the meta keys), embedding present - zeroed: the boost that the theorem speaks of
    fall_without  entropy with the meta keys masked out - with them
    fall_zeroed   entropy with the embedding zeroed - present; fall_boost is what the boost alone would do of that
    fall_dropped  entropy with positions dropped at meta-tokens - kept

A row is one query of one head that sees a meta key. Nulls: as many random ordinary keys of the same row, and a model of
the same shape that was not trained. All in nats; theorem, condition and scale: docs/theory.md.
"""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from lightning_metatok.analysis.sharpening import (
    attention_entropy,
    boosted_attention,
    entropy_without,
    log_odds,
    sharpens,
    turning_boost,
)
from lightning_metatok.analysis.statistics import resampled_means
from lightning_metatok.data import Batch
from lightning_metatok.errors import UserError
from lightning_metatok.lit.ablations.answer_position_ablation import can_drop
from lightning_metatok.model import MetaTransformer
from lightning_metatok.model.recording import recorded
from lightning_metatok.probes.base import Finding, Probe, Subject
from lightning_metatok.probes.sharpening_figure import draw

LEAST = 30
"""Prompts that an interval needs."""
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
SCORES_AT_ONCE = 1 << 26
"""Numbers that are recorded of a model in one pass, unless one prompt has more."""
ALL_HEADS = -1
TRAINED, UNTRAINED = "trained", "untrained"
META, RANDOM = "meta", "random ordinary"

Values = dict[tuple[str, str, str], list[NDArray[np.float32]]]
"""(model, keys, measure): arrays [rows, layers, heads]."""


class Sharpening(Probe):
    """Boost, condition and entropy at meta-tokens, against nulls."""

    name = "sharpening"
    question = "do meta-tokens get a boost, and does it sharpen attention? (theory.md)"
    needs_meta_tokens = True

    def __init__(self, layers: list[int] | None = None, heads: list[int] | None = None, queries: int = 64) -> None:
        """Describe the probe.

        Args:
            layers: Layers that are looked at; null: all.
            heads: Heads that are looked at; null: all.
            queries: Queries of a prompt that are looked at, at most, drawn at random.
        """
        self.layers, self.heads, self.queries = layers, heads, queries

    def check(self, subject: Subject) -> None:
        """Layers and heads that exist, and prompts enough for intervals."""
        subject.need_layers(self.name, self.layers)
        subject.need_heads(self.name, self.heads)
        subject.need_examples(self.name, LEAST)
        if self.queries < 1:
            raise UserError(f"probe.{self.name}.queries={self.queries}: expected 1 or more")

    def run(self, subject: Subject) -> list[Finding]:
        """Measure every row, and average over the rows of a prompt, then over prompts."""
        layers, heads = subject.need_layers(self.name, self.layers), subject.need_heads(self.name, self.heads)
        values, prompts, done = Values(), [], 0
        models = {TRAINED: subject.model, UNTRAINED: _untrained(subject)}
        generator = torch.Generator().manual_seed(subject.seed)
        for piece in _pieces(subject):
            subject.progress(self.name, done, subject.n_examples)
            rows = _Rows.draw(piece, self.queries, generator)
            prompts.append(done + rows.prompt_R.numpy())
            for name, model in models.items():
                for (keys, measure), found in _measure(subject, model, piece, rows, layers, heads).items():
                    values.setdefault((name, keys, measure), []).append(found)
            done += len(piece.tokens_BT)
        prompt_R = np.concatenate(prompts)
        n_prompts = len(np.unique(prompt_R))
        if n_prompts < LEAST:
            raise UserError(
                f"--examples={subject.n_examples}: only {n_prompts} of them have a query that sees a meta-token and as "
                f"many ordinary ones; probe.{self.name} expected at least {LEAST}"
            )
        table = _table(values, prompt_R, layers, heads)
        says = _says(table)
        return [Finding(self.name, table, draw(table, f"{subject.label}: {says}"), says)]


class _Rows:
    """Queries that are looked at, flat over the prompts of a batch, with the keys that are boosted in each."""

    def __init__(self, prompt_R: Tensor, query_R: Tensor, keys: dict[str, Tensor]) -> None:
        self.prompt_R, self.query_R, self.keys = prompt_R, query_R, keys

    @classmethod
    def draw(cls, batch: Batch, at_most: int, generator: torch.Generator) -> "_Rows":
        """Draw queries that see a meta key, and at least as many ordinary ones."""
        meta_BT, documents_BT = batch.meta_mask_BT.cpu(), batch.document_ids_BT.cpu()
        T = meta_BT.shape[1]
        causal_TT = torch.ones(T, T, dtype=torch.bool).tril()
        seen_BTT = causal_TT & (documents_BT.unsqueeze(1) == documents_BT.unsqueeze(2))
        seen_BTT &= (documents_BT >= 0).unsqueeze(2)
        n_meta_BT = (seen_BTT & meta_BT.unsqueeze(1)).sum(dim=2)
        fit_BT = (n_meta_BT > 0) & (seen_BTT.sum(dim=2) >= 2 * n_meta_BT)
        luck_BT = torch.rand(fit_BT.shape, generator=generator).masked_fill(~fit_BT, -1.0)
        chosen = luck_BT.topk(min(at_most, T), dim=1)
        prompt_R, place_R = (chosen.values >= 0).nonzero(as_tuple=True)
        query_R = chosen.indices[prompt_R, place_R]
        seen_RT = seen_BTT[prompt_R, query_R]
        meta_RT = seen_RT & meta_BT[prompt_R]
        luck_RT = torch.rand(seen_RT.shape, generator=generator).masked_fill(~seen_RT | meta_RT, -1.0)
        rank_RT = luck_RT.argsort(dim=1, descending=True).argsort(dim=1)
        return cls(prompt_R, query_R, {META: meta_RT, RANDOM: rank_RT < meta_RT.sum(dim=1, keepdim=True)})

    def of(self, scores_BNTT: Tensor, heads: list[int]) -> Tensor:
        """The logits of these rows in float64, [R, N, T]."""
        prompt_R, query_R = self.prompt_R.to(scores_BNTT.device), self.query_R.to(scores_BNTT.device)
        return scores_BNTT[prompt_R, :, query_R][:, heads].double().cpu()


@torch.no_grad()
def _measure(
    subject: Subject, model: MetaTransformer, batch: Batch, rows: _Rows, layers: list[int], heads: list[int]
) -> dict[tuple[str, str], NDArray[np.float32]]:
    """Every measure of every row, [R, L, N] each, by (keys, measure)."""
    passes: dict[str, dict[str, Any]] = {"present": {}, "zeroed": {"zero_meta_embedding": True}}
    if subject.config.drop_positions != "both" and can_drop(subject.config, "both"):
        passes["dropped"] = {"drop_positions": "both"}
    separate = batch.document_ids_BT if subject.module.separate_documents else None
    logits: dict[str, list[Tensor]] = {}
    with recorded(model) as recording:
        for name, changes in passes.items():
            model(batch.tokens_BT, batch.meta_mask_BT, batch.position_ids_BT, separate, return_hidden=True, **changes)
            scores = [recording.layers[layer]["self_attention"].scores_BNTT for layer in layers]
            logits[name] = [rows.of(layer_scores, heads) for layer_scores in scores if layer_scores is not None]
    found: dict[tuple[str, str], list[Tensor]] = {}
    for i in range(len(layers)):
        of_layer = _measure_layer({name: of_pass[i] for name, of_pass in logits.items()}, rows.keys)
        for key, values_RN in of_layer.items():
            found.setdefault(key, []).append(values_RN)
    return {key: torch.stack(of_layers, dim=1).float().numpy() for key, of_layers in found.items()}


def _measure_layer(logits: dict[str, Tensor], keys: dict[str, Tensor]) -> dict[tuple[str, str], Tensor]:
    """The measures of one layer from its rows' logits [R, N, T] in each pass, and the keys [R, T] that are chosen."""
    present, zeroed = logits["present"], logits["zeroed"]
    entropy = attention_entropy(present.softmax(dim=-1))
    found = {(META, "entropy"): entropy}
    for name, chosen_RT in keys.items():
        chosen = chosen_RT.unsqueeze(1).expand_as(present)
        strongest = present.masked_fill(~chosen, -torch.inf).argmax(dim=-1)
        boost = log_odds(present, chosen) - log_odds(zeroed, chosen)
        n = chosen_RT.sum(dim=1, keepdim=True)
        found |= {
            (name, "condition"): sharpens(present, strongest).double(),
            (name, "condition_together"): sharpens(present, chosen).double(),
            (name, "turning_boost"): turning_boost(present, chosen),
            (name, "mass"): log_odds(present, chosen).sigmoid(),
            (name, "log_odds"): boost,
            (name, "logit"): torch.where(chosen, present - zeroed, 0.0).sum(dim=-1) / n,
            (name, "fall_without"): entropy_without(present, chosen) - entropy,
        }
        if name == META:
            before = attention_entropy(zeroed.softmax(dim=-1))
            alone = attention_entropy(boosted_attention(zeroed, chosen, boost))
            found |= {(META, "fall_zeroed"): before - entropy, (META, "fall_boost"): before - alone}
    found[META, "largest_logit"] = present.amax(dim=-1) - zeroed.amax(dim=-1)
    if "dropped" in logits:
        found[META, "fall_dropped"] = attention_entropy(logits["dropped"].softmax(dim=-1)) - entropy
    return found


def _untrained(subject: Subject) -> MetaTransformer:
    """A model of the same shape as it is before the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(subject.seed)
        model = MetaTransformer(subject.config)
    return model.to(subject.device).eval()


def _pieces(subject: Subject) -> Iterator[Batch]:
    """The batches, in pieces whose scores fit into memory."""
    config = subject.config
    for batch in subject.batches:
        B, T = batch.tokens_BT.shape
        rows = max(1, SCORES_AT_ONCE // (config.n_layers * config.n_heads * T * T))
        for first in range(0, B, rows):
            yield Batch(**{name: value[first : first + rows] for name, value in vars(batch).items()})


def _table(values: Values, prompt_R: NDArray[np.int64], layers: list[int], heads: list[int]) -> DataFrame:
    """One row for each model, choice of keys, measure, layer and head, and for all heads of a layer together."""
    of_prompts, place_R = np.unique(prompt_R, return_inverse=True)
    n_rows_P = np.bincount(place_R)
    table = []
    for (model, keys, measure), parts in values.items():
        values_RLN = np.concatenate(parts)
        sums_PLN = np.zeros((len(of_prompts), *values_RLN.shape[1:]))
        np.add.at(sums_PLN, place_R, values_RLN)
        means_PLN = sums_PLN / n_rows_P[:, None, None]
        for i, layer in enumerate(layers):
            columns_PK = np.concatenate([means_PLN[:, i].mean(axis=1, keepdims=True), means_PLN[:, i]], axis=1)
            low_K, high_K = np.quantile(resampled_means(columns_PK), [0.025, 0.975], axis=0)
            for k, head in enumerate([ALL_HEADS, *heads]):
                row_values = values_RLN[:, i] if head == ALL_HEADS else values_RLN[:, i, k - 1]
                row = {"model": model, "keys": keys, "measure": measure, "layer": layer, "head": head}
                row |= {"n_prompts": len(of_prompts), "n_rows": row_values.size, "mean": columns_PK[:, k].mean()}
                row |= {"low": low_K[k], "high": high_K[k]}
                names = [f"p{round(100 * q):02d}" for q in QUANTILES]
                table.append(row | dict(zip(names, np.quantile(row_values, QUANTILES), strict=True)))
    return DataFrame(table)


def _says(table: DataFrame) -> str:
    whole = table[table["head"] == ALL_HEADS].groupby(["model", "keys", "measure"])["mean"].mean()
    of = {key: float(whole[key]) for key in itertools.product((TRAINED, UNTRAINED), (META, RANDOM), ("condition",))}
    boost, fall = (float(whole[TRAINED, META, measure]) for measure in ("log_odds", "fall_zeroed"))
    return (
        f"a boost of a meta key sharpens in {100 * of[TRAINED, META, 'condition']:.0f} % of rows "
        f"(random key {100 * of[TRAINED, RANDOM, 'condition']:.0f} %, untrained "
        f"{100 * of[UNTRAINED, META, 'condition']:.0f} %); the embedding moves their log odds by {boost:+.2f} "
        f"and entropy by {-fall:+.2f} nats"
    )
