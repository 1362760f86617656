"""The model card: what a model is, its data and arm, what was measured and how sure that is, how to load it."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_metatok import __version__
from lightning_metatok.lit.checkpoints.marks import NONE
from lightning_metatok.meta_tokens import META

if TYPE_CHECKING:
    from lightning_metatok.export.write import Trained, Written

METRICS = {
    "loss/val": "validation loss, nats per source token",
    "bits_per_byte/val": "validation, bits per byte",
    "loss/test": "test loss, nats per source token",
    "bits_per_byte/test": "test, bits per byte",
    "accuracy/exact/val": "validation, share of whole answers that are right",
}
FRONT = """---
library_name: transformers
pipeline_tag: text-generation
tags: [meta-tokens, lightning-metatok]
---
"""
LOAD_STOCK = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
```"""
LOAD_OWN = """```python
import lightning_metatok.export  # pip install 'lightning-metatok[hf]'; or trust_remote_code=True below
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("{name}")
tokenizer = AutoTokenizer.from_pretrained("{name}")
inputs = tokenizer(["def read(self, path):"], return_tensors="pt", padding=True)
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=32)[0]))
```"""


def model_card(trained: "Trained", written: "Written", commit: str | None) -> str:
    """Return the text of README.md. Numbers are those of the run folder that the checkpoint lies in, where it does."""
    config, run = trained.model.config, trained.path.resolve().parent.parent
    arm = _json(run / "arm.json")
    name = written.folder.name
    kind = "a lightning_metatok model" if written.family is None else f"a {written.family.name} model"
    rows = {
        "arm": arm.get("arm", "not said by the run"),
        "parameters": f"{trained.model.n_parameters():,}",
        "layers, heads, width": f"{config.n_layers}, {config.n_heads}, {config.d_model}",
        "longest sequence trained on": f"{config.max_positions:,} tokens",
        "positions": config.position,
        "pattern": config.pattern,
        "mechanism": config.mechanism,
        "vocabulary": f"{trained.tokenizer.vocab_size:,} ids",
        "data": arm.get("data", "not said by the run"),
        "seed": arm.get("seed", "not said by the run"),
        "optimiser steps": f"{trained.step:,}",
        "made with": f"lightning-metatok {__version__}" + (f", commit {commit}" if commit else ""),
    }
    parts = [
        FRONT + f"\n# {name}",
        f"A language model trained with lightning-metatok, written as {kind}"
        + (f" ({written.why_own})." if written.family is None else "."),
        _table(("what", "value"), rows.items()),
        "## Meta-tokens",
        _marks(trained),
        "## Measured",
        _measured(run),
        "## Load it",
        (LOAD_OWN if written.family is None else LOAD_STOCK).format(name=name),
    ]
    return "\n\n".join(parts) + "\n"


def _marks(trained: "Trained") -> str:
    found = trained.marks
    if found is None:
        return "Nothing says whether and where meta-tokens stood in training."
    if found.placement == NONE or found.fraction == 0:
        return "There were none in training."
    return (
        f"In training {META} (id {trained.tokenizer.meta_id}) was {found.fraction:.0%} of a block, placed by the rule "
        f"`{found.placement}`{_kinds(trained)}. A prompt without it is text that the model has not been trained on: "
        f"`lightning_metatok.export.insert_meta` puts it in by that rule. The model never writes it."
    )


def _kinds(trained: "Trained") -> str:
    ids = trained.tokenizer.meta_ids
    return f"; it has {len(ids)} kinds, ids {', '.join(map(str, ids))}, in turn" if len(ids) > 1 else ""


def _measured(run: Path) -> str:
    rows = [*_of_answers(run / "answers.csv"), *_of_metrics(run / "metrics.jsonl")]
    if not rows:
        return "Nothing: the checkpoint lies in no run folder with numbers."
    note = (
        "Intervals are Wilson's, 95 %, over prompts. A number without one is of one run, over all that was scored; "
        "between seeds it varies."
    )
    scored = _json(run / "arm.json").get("scored_text", {})
    if targets := scored.get("targets"):
        note += f" Validation scores {targets:,} targets."
    return _table(("what", "value", "interval"), rows) + f"\n\n{note}"


def _of_answers(path: Path) -> Iterator[tuple[str, str, str]]:
    if path.is_file():
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                what = f"exact answers, {row['label']}, {float(row['multiple']):g}x the trained length"
                yield what, f"{float(row['exact']):.3f}", f"{float(row['low']):.3f} to {float(row['high']):.3f}"


def _of_metrics(path: Path) -> Iterator[tuple[str, str, str]]:
    if not path.is_file():
        return
    last: dict[str, float] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found = json.loads(line)
        except json.JSONDecodeError:  # a run that was killed while it wrote
            continue
        last |= {key: found[key] for key in METRICS if key in found}
    for key, said in METRICS.items():
        if key in last:
            yield said, f"{last[key]:.4f}", ""


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}
    return found if isinstance(found, dict) else {}


def _table(header: tuple[str, ...], rows: Any) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
