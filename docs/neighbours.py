"""The tables of docs/neighbours.md: what each arm can do, and what was measured of it."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from benchmarks.neighbours import injected, settings_of
from docs.markdown import table
from lightning_metatok.analysis.effective_length import effective_length
from lightning_metatok.errors import UserError
from lightning_metatok.export.families import family_of
from lightning_metatok.model import TransformerConfig, mechanisms
from lightning_metatok.model.adapted.transformer import check
from lightning_metatok.model.attention import patterns
from lightning_metatok.model.attention.facts import Facts
from lightning_metatok.model.build import own
from lightning_metatok.model.config import FEATURES

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "neighbours"
SHAPE: dict[str, Any] = {"n_layers": 4, "n_heads": 4, "d_model": 128, "vocab_size": 1024, "max_positions": 512}

BUDGETS = {"wider-plain", "flops-plain"}
"""Arms that are plain with another budget."""


def abilities() -> str:
    """What each arm can do, asked of the model that it is."""
    rows = []
    plain = parameters(TransformerConfig(**SHAPE, mechanism="none"))
    for path in sorted((ROOT / "conf" / "arm").glob("*.yaml")):
        if path.stem in BUDGETS:
            continue
        said = yaml.safe_load(path.read_text(encoding="utf-8"))["model"]
        config = TransformerConfig(**{**SHAPE, **said})
        can = [yes(config.check_can, feature) for feature in FEATURES]
        family, _ = family_of(config)
        memory = "all" if config.built_mechanism.needs_all_keys else config.built_recurrence.keeps or "by its pattern"
        exported = "`lightning_metatok`" if family is None else f"`{family.name}`"
        more = parameters(config) / plain - 1
        rows.append([f"`{path.stem}`", f"{more:+.0%}" if more else "", *can, memory, exported, yes(check, config)])
    features = ("cache", "compile", "documents", "encoder", "probes")
    head = ("arm", "weights", *features, "keys kept", "exports as", "on a base of Hugging Face")
    return table(head, rows)


def parameters(config: TransformerConfig) -> int:
    """Of a model that is not made."""
    with torch.device("meta"):
        return own(config).n_parameters()


def yes(ask: Any, of: Any) -> str:
    """Whether a question is answered without an error."""
    try:
        ask(of)
    except UserError:
        return "no"
    return "yes"


def neighbours() -> str:
    """What `results/neighbours` holds: each arm against the plain of its own run of the sweep, seeds paired."""
    columns = {f"ablation/kept_{k}x": f"{k}x" for k in (1, 2, 4)}
    rows = measured(pd.read_csv(RESULTS / "runs.csv"), columns)
    rows += [row for row in measured(pd.read_csv(RESULTS / "later.csv"), columns) if row[0] != "plain"]
    head = ["arm", "seeds", *(f"nats at {name}, minus plain (seeds)" for name in columns.values())]
    more = ["effective length", "TFLOP of training", "tokens/s", "time of plain's step", "peak MiB"]
    return table([*head, *more, "rows read", "rows kept"], rows)


def measured(runs: pd.DataFrame, columns: dict[str, str]) -> list[list[str]]:
    """A row an arm; `columns`: of losses, and what they are called."""
    runs = runs[runs["state"] == "done"]
    plain = runs[runs["arm"] == "plain"].set_index("seed_everything")
    rows = []
    for arm, of_arm in runs.groupby("arm", sort=False):
        cells = [str(arm), str(len(of_arm))]
        for column in columns:
            found = of_arm.set_index("seed_everything")[column]
            if arm == "plain" or len(found) < 2:
                cells.append(f"{found.mean():.3f}")
                continue
            apart = sorted((found - plain[column]).dropna())  # too few seeds for an interval: all of them
            cells.append(
                f"{found.mean():.3f}, {sum(apart) / len(apart):+.3f} ({', '.join(f'{d:+.3f}' for d in apart)})"
            )
        kept = effective_length({k: of_arm[f"ablation/kept_{k}x"].mean() for k in (1, 2, 4)}, is_loss=True)
        length = "" if kept is None else f"{kept:g}x" if kept < 4 else "4x or more"
        flops = f"{of_arm['budget/flops'].mean() / 1e12:.1f}"
        rows.append([*cells, length, flops, *costs(str(arm)), *rows_of_arm(str(arm))])
    return rows


def costs(arm: str) -> tuple[str, str, str]:
    """Source tokens a second, time of a step beside plain's, and its peak memory, of `benchmarks.neighbours`."""
    path = ROOT / "benchmarks" / "results" / "neighbours.json"
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else ():
        if row["what"] == f"{arm} / plain":
            return f"{row['tokens/s']:,}", f"{row['ratio']:.2f} x", str(row["MiB"])
    return "", "", ""


def rows_of_arm(arm: str, n_source: int = 512) -> tuple[str, str]:
    """Keys that a token of such a text reads on average, and those that are kept at its end, by an arm's pattern."""
    model, data = (settings_of(arm)[room] for room in ("model", "data"))
    if (loop := model.get("recurrence_options")) is not None:  # the memory and the segment at hand
        return f"{loop['memory'] + (loop['segment'] + 1) / 2:.0f}", str(loop["memory"] + loop["segment"])
    rule = patterns.build(model["pattern"], **model.get("pattern_options", {}))
    extra_1N = injected(data, n_source).meta_mask_BT
    n = extra_1N.shape[1]
    facts = Facts.of(n, extra_1N)
    mechanism = mechanisms.build(model["mechanism"], **model["mechanism_options"])
    all_kept = mechanism.needs_all_keys
    return f"{rule.mask(facts).float().sum() / n:.0f}", str(
        n if all_kept else int(rule.lasts(facts).expand(1, n).sum())
    )
