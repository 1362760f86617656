"""Names of all options of `fit`, without loading torch each time: kept in the cache, one file a version of the code."""

import json
from importlib.metadata import version

from lightning_metatok.errors import UserError
from lightning_metatok.files import cache_folder, write_atomically


def option_names(code: str, task: bool) -> list[str]:
    """Return the dotted names of the options of a recall task, or of text.

    Args:
        code: hash of the code. task: whether a recall task is trained.
    """
    kind = "task" if task else "text"
    path = cache_folder() / f"option-names-{kind}-{code}-{version('lightning')}.json"
    try:
        names: list[str] = json.loads(path.read_text(encoding="utf-8"))
        return names
    except (OSError, ValueError):
        pass
    from lightning_metatok.cli.dry_parser import names_of_options

    names = names_of_options(kind)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(names))
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return names
