"""What of a configuration is written down: ${...} as it was given, so that a copy of it follows and keeps no secret.

jsonargparse resolves ``${model.d_model}`` and ``${oc.env:KEY}`` alike before anything is built. In config.yaml both
stand as they were given: a longer rerun's schedule follows ``${trainer.max_steps}``. What else is kept of a
configuration, in checkpoints and TensorBoard, has values to compare, but for those that come from outside
(``${oc.env:...}``, or any other ``${NAME:...}`` but this project's own), directly or by another key: these are nobody's
business.
"""

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


def config_text(parser: Parser, config: Namespace, run_dir: str) -> str:
    """What config.yaml says: a copy of `config` that can be run, in the folder that the run went to."""
    content = as_given(_plain(parser, config), parser.given or {})
    if run_dir != str(config.run_dir):
        content["run_dir"] = run_dir
    return "".join(f"# {line}\n" for line in parser.dump_header or ()) + as_text(content)


def kept_config(parser: Parser, config: Namespace) -> dict[str, Any]:
    """The configuration as checkpoints and TensorBoard keep it."""
    return dict(without_secrets(_plain(parser, config), parser.given or {}))


def _plain(parser: Parser, config: Namespace) -> dict[str, Any]:
    return dict(json.loads(parser.dump(config, skip_unset=False, format="json")))


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
