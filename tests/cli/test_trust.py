"""A configuration from elsewhere chooses no task that would be imported."""

from typing import Any

import pytest

from lightning_metatok.cli.dry_parser import parser_of
from lightning_metatok.cli.trust import check_trusted
from lightning_metatok.errors import UserError

PHASE = {"task": "evil_package.Echo", "steps": 3}


@pytest.mark.parametrize("data", [{"task": "evil_package.Echo"}, {"task": "copying", "curriculum": [PHASE, {}]}])
def test_a_task_of_another_package_is_refused(data: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"it names evil_package\.Echo, .*--trust allows it"):
        check_trusted({"data": data}, "theirs.yaml", parser_of("task"))


def test_tasks_of_this_package_are_not_asked_about() -> None:
    phases = [{"task": "parity", "options": {"n_bits": [4, 6]}, "steps": 3}, {}]
    for task in ("copying", "lightning_metatok.tasks.copying.Copying"):
        check_trusted({"data": {"task": task, "curriculum": phases}}, "theirs.yaml", parser_of("task"))
