"""`replay`: make the step again that stopped a run because its loss or gradient was not finite, and say where it began.

lightning-metatok replay runs/base
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_metatok.errors import OptionParser, UserError

if TYPE_CHECKING:
    from lightning_metatok.data import Batch
    from lightning_metatok.lit.module import MetaTokenLM

NEEDED = (
    *("step", "losses", "norm", "batches", "seeds", "random", "state_dict", "hyper_parameters"),
    *("scores_answers_only", "separate_documents", "precision", "device"),
)
NAME = re.compile(r"step-(\d+)-rank-(\d+)\.pt")


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok replay", description=__doc__)
    parser.add_argument("run", help="run folder; the last such step of each rank is made again")
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print what each rank's step gives now; exit code 0 if it is as it was, 1 if all is finite this time."""
    arguments = build_parser().parse(argv)

    from lightning_metatok.lit.callbacks.nonfinite import FOLDER

    folder = Path(arguments.run) / FOLDER
    found = [(int(m[1]), path) for path in sorted(folder.glob("*.pt")) if (m := NAME.fullmatch(path.name))]
    if not found:
        raise UserError(f"{arguments.run}: expected a run that stopped on a loss or gradient that was not finite")
    last = max(step for step, _ in found)
    again = [_replay(path, arguments.trust) for step, path in found if step == last]
    return 0 if any(again) else 1


def _read(path: Path, trust: bool) -> "tuple[dict[str, Any], MetaTokenLM, list[Batch]]":
    """The record of a step, the module as it was before it, and its batches.

    Raises:
        UserError: the record is damaged, or holds a part of what a step needs, or needs code that nobody vouched for.
    """
    from lightning_metatok.data import Batch
    from lightning_metatok.lit.checkpoints.contents import check_trusted_axes
    from lightning_metatok.lit.checkpoints.io import read_state
    from lightning_metatok.lit.module import MetaTokenLM

    record = read_state(path, key="run")
    if missing := [name for name in NEEDED if name not in record]:
        raise UserError(f"run={path}: expected a whole record of a step; it lacks {', '.join(missing)}")
    try:
        if not trust:
            check_trusted_axes(record["hyper_parameters"], f"run={path}")
        module = MetaTokenLM(**{**record["hyper_parameters"], "compile": False})
        module.load_state_dict(record["state_dict"])
        batches = [Batch(**content) for content in record["batches"]]
        ids = [batch.tokens_BT for batch in batches]
        fits = batches and all(int(one.min()) >= 0 and int(one.max()) < module.model.config.vocab_size for one in ids)
        if not fits or len(batches) != len(record["seeds"]):
            raise ValueError("its batches do not fit the model")
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"run={path}: expected a whole record of a step; {str(error).partition(chr(10))[0]}") from error
    return record, module, batches


def _replay(path: Path, trust: bool) -> bool:
    """Make the step of one rank again; whether something is not finite."""
    import torch

    from lightning_metatok.lit.checkpoints.random_state import set_random_state
    from lightning_metatok.lit.targets import summed

    record, module, batches = _read(path, trust)
    device = record["device"] if record["device"] == "cpu" or torch.cuda.is_available() else "cpu"
    module.scores_answers_only = record["scores_answers_only"]
    module.separate_documents = record["separate_documents"]
    module.to(device).train()
    print(f"{path.name}: {record['precision']} on {device}")
    bad = [name for name, value in module.named_parameters() if not torch.isfinite(value).all()]
    bad_outputs: list[str] = []
    for name, part in module.model.named_modules():
        part.register_forward_hook(lambda _, __, output, name=name: _note(output, name, bad_outputs))
    set_random_state(record["random"])
    half = torch.autocast(device, torch.bfloat16, enabled=record["precision"] == "bf16-mixed")
    losses, scored = [], sum(int((batch.targets_BT >= 0).sum()) for batch in batches)
    memories = record.get("memories", [None] * len(batches))  # older records have none
    for on_host, seed, memory_BMD in zip(batches, record["seeds"], memories, strict=True):
        if seed is not None:
            torch.manual_seed(seed)
        batch = on_host.to(device)
        if memory_BMD is not None:
            module.model.carried_BMD = memory_BMD.to(device)
        with half:
            loss = summed(module.model, module.rows(batch)).sum
        (loss / scored).backward()
        losses.append((loss / (batch.targets_BT >= 0).sum()).item())
    gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
    norm = float(torch.linalg.vector_norm(torch.stack([g.float().norm() for g in gradients.values()])))
    bad_gradients = [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()]
    print(f"  loss           {_numbers(losses)}, was {_numbers(record['losses'])}")
    print(f"  gradient norm  {norm:g}, was {record['norm']:g}")
    for what, names, total in (
        ("weights", bad, len(list(module.parameters()))),
        ("outputs", bad_outputs, len(list(module.model.modules()))),
        ("gradients", bad_gradients, len(gradients)),
    ):
        print(f"  {what:<9} not finite: {len(names)} of {total}{f', first {names[0]}' if names else ''}")
    return not all(map(_is_finite, [*losses, norm]))


def _note(output: Any, name: str, found: list[str]) -> None:
    import torch

    if isinstance(output, torch.Tensor) and name not in found and not torch.isfinite(output).all():
        found.append(name or "the whole model")


def _numbers(values: Sequence[float]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")
