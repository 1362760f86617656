"""What of a configuration is written down: ${...} as it was given, so that a copy of it follows and keeps no secret.

jsonargparse resolves ``${model.d_model}`` and ``${oc.env:KEY}`` alike before anything is built. In config.yaml both
stand as they were given: a longer rerun's schedule follows ``${trainer.max_steps}``. What else is kept of a
configuration, in checkpoints and TensorBoard, has values to compare, but for those that come from outside
(``${oc.env:...}``, or any other ``${NAME:...}`` but this project's own), directly or by another key: these are nobody's
business.
"""

import copy
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from jsonargparse import Namespace
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lightning_metatok.cli.training_parser import Parser
from lightning_metatok.yaml_files import WITH_MARKS, as_text

FROM_OUTSIDE = re.compile(rf"\$\{{(?=\s*[\w.]+\s*:)(?!{WITH_MARKS}:)")
MARK = "\ue000"
"""A character of no meaning, which no configuration holds."""


class Records:
    """What is written down of the configuration that `parser` has read; made anew where it has changed since."""

    def __init__(self, parser: Parser) -> None:
        self.parser, self.given = parser, parser.given or {}
        self._of: Namespace | None = None
        self._resolved: dict[str, Any] = {}
        self._values: dict[str, Any] | None = None

    def text(self, config: Namespace, run_dir: str) -> str:
        """What config.yaml says: a copy of `config` that can be run, in the folder that the run went to."""
        content = as_given(self._read(config), self.given)
        if run_dir != str(config.run_dir):
            content["run_dir"] = run_dir
        return "".join(f"# {line}\n" for line in self.parser.dump_header or ()) + as_text(content)

    def values(self, config: Namespace) -> dict[str, Any]:
        """The configuration as checkpoints and TensorBoard keep it."""
        resolved = self._read(config)
        if self._values is None:
            self._values = dict(without_secrets(resolved, self.given))
        return copy.deepcopy(self._values)

    def _read(self, config: Namespace) -> dict[str, Any]:
        if config != self._of:
            self._of, self._values = config.clone(), None
            self._resolved = dict(json.loads(self.parser.dump(config, skip_unset=False, format="json")))
        return self._resolved


def as_given(resolved: Any, given: Any) -> Any:
    """`resolved` with each ``${...}`` as it stands in `given`, a configuration of the same shape."""
    return _overlaid(resolved, given, given, lambda text, _: "${" in text)


def without_secrets(resolved: Any, given: Any) -> Any:
    """`resolved`, in which each value that comes from outside stands as it does in `given`."""
    try:
        marked = OmegaConf.to_container(OmegaConf.create(_marked(given)), resolve=True)
    except OmegaConfBaseException:  # ${a.${oc.env:KEY}}: which key it is, is a secret, too
        return as_given(resolved, given)
    return _overlaid(resolved, given, marked, lambda _, text: MARK in text)


def _marked(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _marked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_marked(one) for one in value]
    return FROM_OUTSIDE.sub(MARK, value) if isinstance(value, str) else value


def _overlaid(resolved: Any, given: Any, marked: Any, keep: Callable[[str, str], bool]) -> Any:
    """`resolved` down to where `keep` says, of the texts given and marked, that what was given stands there."""
    if isinstance(given, str):  # it may stand for a mapping or a list
        return given if keep(given, str(marked)) else resolved
    if isinstance(resolved, Mapping) and isinstance(given, Mapping):
        return {
            key: _overlaid(value, given[key], marked[key], keep) if key in given else value
            for key, value in resolved.items()
        }
    if isinstance(resolved, list) and isinstance(given, list):
        if len(resolved) == len(given):
            return [_overlaid(*three, keep) for three in zip(resolved, given, marked, strict=True)]
        return given if "${" in str(given) else resolved
    return resolved
