"""`init`: conf/ and sweeps/, the experiments that this version came with, as files of your own.

    lightning-metatok init [FOLDER]
    lightning-metatok fit --config conf/debug.yaml

FOLDER is where you are, unless it is given. Nothing that is there already is written over.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import lightning_metatok
from lightning_metatok.errors import OptionParser, UserError

SHIPPED = ("conf", "sweeps")


def shipped_folder() -> Path:
    """Where conf/ and sweeps/ are: inside the installed package, or, of a checkout, beside it."""
    package = Path(lightning_metatok.__file__).parent
    return inside if (inside := package / "shipped").is_dir() else package.parent


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok init", description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("."), metavar="FOLDER")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Copy the files; print what to try first."""
    folder = build_parser().parse(argv).folder
    source = shipped_folder()
    there = [name for name in SHIPPED if os.path.lexists(folder / name)]
    if there:
        raise UserError(f"init {folder}: holds {' and '.join(f'{name}/' for name in there)} already; expected neither")
    if missing := [name for name in SHIPPED if not (source / name).is_dir()]:
        raise UserError(f"{source}: {missing[0]}/ is missing; expected it to be installed with the package")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in SHIPPED:
            shutil.copytree(source / name, folder / name)
    except OSError as error:
        raise UserError(f"init {folder}: cannot be written: {error.strerror}") from error
    count = sum(path.is_file() for name in SHIPPED for path in (folder / name).rglob("*"))
    print(f"{count} files in {folder / 'conf'} and {folder / 'sweeps'}; try:")
    go = "" if folder == Path(".") else f"cd {folder} && "
    print(f"  {go}lightning-metatok fit --config conf/debug.yaml")
    return 0
