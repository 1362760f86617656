"""`diff`: what two runs differ in: keys of their configurations, versions, and where their metrics ended.

    lightning-metatok diff RUN RUN [--all]

Metrics that both logged stand there with the difference, second minus first; --all shows those that are equal, too.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_metatok.errors import OptionParser

ABSENT = "-"


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok diff", description=__doc__)
    parser.add_argument("first", type=Path, metavar="RUN", help="run folder that `fit` wrote")
    parser.add_argument("second", type=Path, metavar="RUN", help="another one")
    parser.add_argument("--all", action="store_true", help="what is equal, too")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Print the tables."""
    arguments = build_parser().parse(argv)
    from rich.table import Table

    from lightning_metatok.console import printer
    from lightning_metatok.report.runs import Run, read_run

    first, second = read_run(arguments.first), read_run(arguments.second)

    def facts(run: Run) -> dict[str, Any]:
        known = {f"environment.{key}": value for key, value in run.environment.items() if not isinstance(value, dict)}
        return {**run.config, "parameters": run.arm["parameters"], "tokenizer": run.tokenizer, **known}

    console, equal = printer(), arguments.all
    settings = Table("key", str(first.folder), str(second.folder), box=None, pad_edge=False)
    for row in differences(facts(first), facts(second), equal=equal):
        settings.add_row(*row)
    metrics = Table("metric, last", str(first.folder), str(second.folder), "difference", box=None, pad_edge=False)
    for name in sorted(first.metrics & second.metrics):
        a, b = first.last(name), second.last(name)
        if equal or a != b:
            metrics.add_row(name, f"{a:.6g}", f"{b:.6g}", f"{b - a:+.4g}")
    for table, none in ((settings, "the same configuration"), (metrics, "the same metrics")):
        console.print(table if table.rows else none)
        console.print()
    for run, names in ((first, first.metrics - second.metrics), (second, second.metrics - first.metrics)):
        if names:
            console.print(f"only {run.folder} logged {', '.join(sorted(names))}", highlight=False, soft_wrap=True)
    return 0


def differences(
    first: Mapping[str, Any], second: Mapping[str, Any], *, equal: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Yield (key, value, other value) of what differs, by key; with `equal` of everything."""
    for key in sorted(first.keys() | second.keys()):
        a, b = first.get(key, ABSENT), second.get(key, ABSENT)
        if equal or a != b:
            yield key, shown(a), shown(b)


def shown(value: Any) -> str:
    """A value as in YAML, in one line."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
