"""`import`: read a model of Hugging Face as a start for `fit`. A mechanism that is added starts with zeros.

    lightning-metatok import --from EleutherAI/pythia-160m --to starts/pythia --mechanism meta
    lightning-metatok fit --config conf/base.yaml --config starts/pythia/config.yaml

What `export` wrote comes back as it was. Architectures: gpt2, gpt_neox (Pythia), llama, mistral, qwen2.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_metatok.errors import OptionParser, UserError
from lightning_metatok.yaml_files import value_of


def build_parser() -> OptionParser:
    """Options of the verb."""
    parser = OptionParser(prog="lightning-metatok import", description=__doc__)
    parser.add_argument("--from", dest="source", required=True, help="folder of a model, or its name on the hub")
    parser.add_argument("--to", required=True, help="folder to make; it must not exist yet, or be empty")
    parser.add_argument("--mechanism", default=None, help="what meta-tokens do (none, or what an exported model had)")
    parser.add_argument("--mechanism_options", default=None, help="its options, such as '{layers: [0, 3]}'")
    parser.add_argument("--meta_kinds", type=int, default=None, help="kinds of meta-tokens (1, or what it has)")
    parser.add_argument("--trust", action="store_true", help="import classes of other packages that the model needs")
    return parser


def main(verb: str, argv: Sequence[str]) -> int:
    """Write the folder and say what it is."""
    arguments = build_parser().parse(argv)
    added: dict[str, Any] = {}
    if arguments.mechanism is not None:
        added = {"mechanism": arguments.mechanism, "mechanism_options": {}}
    if arguments.mechanism_options is not None:
        if arguments.mechanism is None:
            raise UserError(f"--mechanism_options={arguments.mechanism_options}: expected --mechanism beside it")
        added["mechanism_options"] = mapping("--mechanism_options", arguments.mechanism_options)

    from lightning_metatok.hub import need_transformers

    need_transformers("import")
    from lightning_metatok.cli.quiet_hub import silence
    from lightning_metatok.export.read import read, write_start
    from lightning_metatok.export.write import check_folder

    silence()
    to = Path(arguments.to)
    check_folder(to)
    start = read(arguments.source, added, kinds=arguments.meta_kinds, trust=arguments.trust)
    write_start(start, to)
    config = start.model.config
    print(
        f"{to}: {start.family}, {start.model.n_parameters():,} parameters, mechanism {config.mechanism}; logits differ "
        f"by {start.difference:.1e} at most from those of transformers"
    )
    print(f"start from it: lightning-metatok fit --config conf/base.yaml --config {to / 'config.yaml'}")
    return 0


def mapping(option: str, text: str) -> Mapping[str, Any]:
    """Return the mapping that the text of an option is. Raises `UserError` where it is none."""
    import yaml

    try:
        found = value_of(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{option}={text}: expected a mapping, such as '{{layers: [0]}}'")
    return found
