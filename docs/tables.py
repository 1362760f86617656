"""The tables of what there is to choose from, in README and in the pages here, from what classes and files say of it.

    make docs-tables                 write them
    python docs/tables.py --check    say which page is not as it would be written; exit code 1

A table stands between two comments that name it, `<!-- arms -->` and `<!-- end of arms -->`, in YAML `# arms` and
`# end of arms`. What a row says stands in the class (its first line and attributes) or in the file of the arm (the line
`# Asks: `). A table is never edited by hand.
"""

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from docstring_parser import parse

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, it has its own folder on the path alone

from docs.markdown import table
from docs.neighbours import abilities, neighbours
from lightning_metatok.data.examples import ANSWER
from lightning_metatok.data.placement import PLACEMENTS
from lightning_metatok.lit.ablations.readings import READINGS
from lightning_metatok.lit.optimizers import OPTIMIZERS
from lightning_metatok.model import mechanisms, positions, recurrences
from lightning_metatok.model.attention import patterns
from lightning_metatok.options import defaults
from lightning_metatok.probes import PROBES
from lightning_metatok.tasks import OF_OTHERS, RECALL, TASKS, build

ROOT = Path(__file__).resolve().parents[1]
ARMS = ROOT / "conf" / "arm"
ASKS = "# Asks: "
LONGEST = 120


def first_line(kind: type) -> str:
    """The first sentence of a class's docstring, as a clause."""
    line = (inspect.getdoc(kind) or "").partition("\n")[0].removesuffix(".").partition("; here ")[0]
    return line[:1].lower() + line[1:] if line[1:2].islower() or line[1:2] == " " else line


def options_of(kind: type) -> str:
    """The options of a class of an axis and their defaults."""
    said = (
        f"{key}: {yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}"
        for key, value in defaults(kind).items()
    )
    return ", ".join(f"`{option}`" for option in said)


def encodings() -> str:
    """What acts on what, by which equation."""
    rows = []
    for name, kind in positions.AXIS.known.own.items():
        hooks = {"embedding": kind.embeds, "q, k": kind.rotates, "scores": kind.transforms_scores}
        acts = ", ".join(hook for hook, has in hooks.items() if has) or "nothing"
        rows.append((f"`{name}`", acts, kind.equation or first_line(kind), kind.learned, kind.claims))
    return table(("name", "acts on", "equation", "learned", "extrapolates (paper)"), rows)


def choices() -> str:
    """How many of each there are, and their names."""
    registries = {
        "positional encodings": (positions.AXIS.known, "docs/positions.md"),
        "patterns": (patterns.AXIS.known, "docs/axes.md"),
        "mechanisms": (mechanisms.AXIS.known, "docs/axes.md"),
        "recurrences": (recurrences.AXIS.known, "docs/axes.md"),
        "placements in text": (PLACEMENTS, "docs/axes.md"),
        "tasks": (TASKS, "docs/recall.md"),
        "readings of text": (READINGS, "docs/axes.md"),
        "probes": (PROBES, "docs/internals.md"),
        "optimisers": (OPTIMIZERS, "docs/optimizers.md"),
    }
    rows = []
    for what, (registry, page) in registries.items():
        names = ", ".join(f"`{name}`" for name in registry.own)
        rows.append((f"{len(registry.own)} [{what}]({page})", f"`{registry.key}`", names))
    return table(("what", "key", "names"), rows)


def of_axis(known: Mapping[str, type]) -> str:
    """Names, what they do, options."""
    rows = [(f"`{name}`", first_line(kind), options_of(kind)) for name, kind in known.items()]
    return table(("name", "what", "options"), rows)


def arms() -> str:
    """The arms as points on the axes, the simplest first."""
    rows = []
    for path in ARMS.glob("*.yaml"):
        text = path.read_text()
        content = yaml.safe_load(text)
        data, model = content["data"], content["model"]
        asks = next((line.removeprefix(ASKS) for line in text.splitlines() if line.startswith(ASKS)), "")
        placement = (
            "none" if not data["meta_fraction"] else f"`{data['meta_placement']}`" if "meta_placement" in data else ""
        )
        mechanism, options = model["mechanism"], model.get("mechanism_options", {})
        known = list(mechanisms.AXIS.known.own)
        order = known.index(mechanism) if mechanism in known else len(known)
        said = [
            f"`{key}: {yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}`"
            for key, value in options.items()
        ]
        cells = (
            f"[{path.stem}](conf/arm/{path.name})",
            placement,
            f"`{model.get('pattern', 'causal')}`",
            f"`{mechanism}`",
            ", ".join(said),
            asks,
        )
        rows.append(((order, placement != "none", bool(options), bool(placement), path.stem), cells))
    head = ("arm", "`data.meta_placement`", "`model.pattern`", "`model.mechanism`", "its options", "asks")
    return table(head, [cells for _, cells in sorted(rows)])


def tasks() -> str:
    """What a prompt is like, and what there is more of in a longer one."""
    rows = [(f"`{kind.name}`", kind.sketch or first_line(kind), kind.grows_with) for kind in RECALL]
    return table(("task", "a prompt in symbols (marks by `hint`), and the answer", "grows with"), rows)


def others() -> str:
    """A prompt of each task of another system, drawn by the task, with its answer."""
    rows = []
    for kind in OF_OTHERS:
        small = build(kind.name, placement="every")
        size = max(small.smallest_size, min(small.default_size[0] + 2, small.default_size[1]))
        task = build(kind.name, placement="every", **{kind.size_field: (size, size)})
        example = task.examples(1, 7)[0]
        first = int(((example.flags & ANSWER) > 0).argmax())
        prompt, answer = (
            task.lexicon.tokenizer.decode(part.tolist(), skip_meta=False).replace("<|meta|>", "<meta>")
            for part in (example.tokens[:first], example.tokens[first:])
        )
        family = kind.__module__.split(".")[-2]
        file = f"../{kind.__module__.replace('.', '/')}.py"
        rows.append((f"[{kind.name}]({file})", family, first_line(kind), f"`{prompt}` → `{answer}`", kind.grows_with))
    return table(("task", "family", "what is asked", "a prompt in symbols, marks by `every`", "grows with"), rows)


def probes() -> str:
    """What is asked, and whether something is changed inside for it."""
    rows = [
        (f"`{kind.name}`", kind.question or first_line(kind), "yes" if kind.intervenes else "no")
        for kind in PROBES.own.values()
    ]
    return table(("probe", "question", "changes something inside"), rows)


def probe_options() -> str:
    """Every option with its default and what it says of itself, as YAML."""
    lines = ["probe:\n"]
    for kind in PROBES.own.values():
        parameters = [p for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        said = {p.arg_name: p.description or "" for p in parse(inspect.getdoc(kind.__init__) or "").params}
        lines += [f"  {kind.name}:\n"] if parameters else []
        for parameter in parameters:
            value = yaml.safe_dump(parameter.default, default_flow_style=True).splitlines()[0]
            what = " ".join(said.get(parameter.name, "").split())
            line = f"    {parameter.name}: {value}"
            lines.append(f"{line} # {what}\n" if what and len(line) + len(what) + 3 <= LONGEST else f"{line}\n")
    return "".join(lines)


BENCHMARKS = ("step", "trainer", "memory", "window", "generation", "out_of_the_box", "compiled", "neighbours", "gpu")


def measured() -> str:
    """What `benchmarks/results` holds, a table a benchmark."""
    parts = []
    for name in BENCHMARKS:
        path = ROOT / "benchmarks" / "results" / f"{name}.json"
        title = f"### {name}\n\n`python -m benchmarks.{name}`"
        if not path.exists():
            parts.append(f"{title}: not measured yet.\n")
            continue
        found = json.loads(path.read_text(encoding="utf-8"))
        where, rows = found["machine"], found["rows"]
        columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("low", "high")))
        lines = [[_cell(row, column) for column in columns] for row in rows]
        said = f"{where['processor']}, threads: {where['threads']}, torch {where['torch']}, load {where['load']}"
        parts.append(f"{title}; {said}\n\n{table(columns, lines)}")
    return "\n".join(parts)


def _cell(row: Mapping[str, Any], column: str) -> str:
    value = row.get(column, "")
    if column == "ratio" and "low" in row:
        return f"{value:.3f} ({row['low']:.3f} to {row['high']:.3f})"
    return f"{value:,}" if isinstance(value, int) else str(value)


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"arms": arms, "choices": choices},
    "docs/positions.md": {"encodings": encodings},
    "docs/recall.md": {"tasks": tasks},
    "docs/tasks.md": {"others": others},
    "docs/internals.md": {"probes": probes},
    "docs/axes.md": {
        "patterns": lambda: of_axis(patterns.AXIS.known.own),
        "mechanisms": lambda: of_axis(mechanisms.AXIS.known.own),
        "recurrences": lambda: of_axis(recurrences.AXIS.known.own),
        "placements": lambda: of_axis(PLACEMENTS.own),
        "readings": lambda: of_axis(READINGS.own),
    },
    "docs/performance.md": {"measured": measured},
    "docs/neighbours.md": {"neighbours": neighbours, "abilities": abilities},
    "conf/probe/full.yaml": {"probes": probe_options},
}
"""Page -> name of the table in it -> what makes it."""


def with_tables(page: str, made: dict[str, Any], *, in_yaml: bool) -> str:
    """Return a page with its tables as they should be."""
    for name, make in made.items():
        begin, end = (
            (f"# {name}\n", f"# end of {name}\n") if in_yaml else (f"<!-- {name} -->\n", f"<!-- end of {name} -->\n")
        )
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        assert found and closed, f"no {begin.strip()} ... {end.strip()} in the page"  # noqa: PT018
        page = before + begin + make() + end + after
    return page


def main(check: bool) -> int:
    """Write the tables, or say which are not as they would be written."""
    code = 0
    for name, made in TABLES.items():
        path = ROOT / name
        page = path.read_text(encoding="utf-8")
        new = with_tables(page, made, in_yaml=path.suffix == ".yaml")
        if new == page:
            continue
        if check:
            print(
                f"{name}: its tables are not what classes and files say; `make docs-tables` writes them",
                file=sys.stderr,
            )
            code = 1
        else:
            path.write_text(new, encoding="utf-8")
    return code


if __name__ == "__main__":
    raise SystemExit(main("--check" in sys.argv[1:]))
