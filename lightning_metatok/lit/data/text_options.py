"""Options of text that cannot work, named before anything is read."""

from lightning_metatok.data import DataConfig, InjectionRule
from lightning_metatok.data.kinds import check_kinds, check_used
from lightning_metatok.errors import UserError


def check_text_options(
    config: DataConfig,
    rule: InjectionRule,
    block_size: int,
    batch_size: int,
    num_workers: int,
    mask_fraction: float | None,
    retarget: bool,
    meta_kinds: int,
) -> None:
    """Raise UserError for a value of `MetaTokenDataModule` that is out of its bounds."""
    for name, value in (("block_size", block_size), ("batch_size", batch_size)):
        if value < 1:
            raise UserError(f"data.{name}={value}: expected a positive number")
    if mask_fraction is not None and not (config.masked and 0 < mask_fraction < 1):
        expected = "a share above 0 and below 1" if config.masked else "data.objective=masked with it"
        raise UserError(f"data.mask_fraction={mask_fraction}: expected {expected}")
    if retarget and config.masked:
        raise UserError(
            "data.retarget=True: expected false with data.objective='masked', which scores tokens where they stand"
        )
    if num_workers < 0:
        raise UserError(f"data.num_workers={num_workers}: expected 0 or more")
    check_kinds(meta_kinds)
    check_used(meta_kinds, rule.n_meta(block_size), "a block")
    if rule.source_length(block_size) < 2:
        raise UserError(f"data.block_size={block_size}: too small to hold two source tokens beside its meta-tokens")
