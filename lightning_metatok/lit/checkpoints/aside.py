"""Files that a run finds in its folder and cannot use: put aside, never deleted. Nobody can make them again.

checkpoints/put-aside/step-20.ckpt      its manifest does not fit it
put-aside/metrics.jsonl                 not what it was when the checkpoint was written
put-aside/events.out.123.host-2         a second one of that name; TensorBoard does not read it here
"""

import os
import shutil
from pathlib import Path

ASIDE = "put-aside"


def put_aside(path: Path, *, copy: bool = False) -> Path:
    """Move a file, link or folder into `put-aside/` beside it, under a name that is free there; return its new path.

    `copy`: leave the file where it is, too, for somebody who replaces it in one move.
    """
    folder = path.parent / ASIDE
    folder.mkdir(exist_ok=True)
    name = path.name.replace("tfevents.", "")  # TensorBoard shows every file with that word, wherever it lies
    target, number = folder / name, 1
    while os.path.lexists(target):
        number += 1
        target = folder / f"{name}-{number}"
    if copy:
        shutil.copyfile(path, target)
    else:
        path.rename(target)
    return target
