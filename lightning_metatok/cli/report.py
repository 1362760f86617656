"""`report`: which arm wins, at which length, how sure; one HTML page, and the same as Markdown with PNG files.

    lightning-metatok report sweeps/x.yaml [--out FOLDER]
    lightning-metatok report --runs runs/plain-1 runs/meta-1 --out FOLDER

The page needs no server and no network. Runs that are not finished are left out, and counted on it.
"""

from collections.abc import Sequence

from lightning_metatok.cli.studies import add_arguments, read_study
from lightning_metatok.errors import OptionParser

MADE = "report"


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok report", description=__doc__)
    add_arguments(parser, MADE)
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Write the report; print where it is and what it found."""
    arguments = build_parser().parse(argv)
    from lightning_metatok.report.sections import report
    from lightning_metatok.report.write import HTML, write

    study, out = read_study(arguments, verb, MADE)
    page = report(study, with_probes=bool(arguments.runs), solved=arguments.solved)
    write(page, out)
    print(f"{out / HTML}: {len(study.runs)} runs, {len(study.conditions)} conditions")
    return 0
