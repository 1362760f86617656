"""Memory of generation: what is forgotten is seen by nobody, and what is seen is never forgotten."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_metatok.errors import UserError
from lightning_metatok.model import MetaTransformer, generate, mechanisms, positions
from lightning_metatok.model.attention.patterns import Causal, Sinks, Window, WindowMeta
from lightning_metatok.model.generate import stream
from lightning_metatok.model.memory import OPTIONS, Memory, cache_of
from lightning_metatok.model.sampling import Sampling
from tests.model.helpers import batch, tiny

LENGTH, W = 21, 5
MEMORIES = [
    Memory(),
    Memory("all"),
    Memory("window", window=W),
    Memory("extra"),
    Memory("window+extra", window=W),
    Memory("sinks+window", window=W, sinks=2),
]
RULES = {
    "window": Window(w=W),
    "extra": WindowMeta(w=1),
    "window+extra": WindowMeta(w=W),
    "sinks+window": Causal() & (Sinks(n=2) | Window(w=W)),
}
FREE = [name for name, kind in mechanisms.AXIS.known.items() if not kind.needs_all_keys]


def step_by_step(model: MetaTransformer, memory: Memory, inputs: tuple[Tensor, Tensor], page: int = 4) -> Tensor:
    """Logits of one token at a time, with forgetting every few tokens."""
    cache, (tokens_BT, mask_BT) = cache_of(model, memory, page=page), inputs
    steps = [model(tokens_BT[:, t : t + 1], mask_BT[:, t : t + 1], cache=cache) for t in range(tokens_BT.shape[1])]
    return torch.cat(steps, dim=1)


def at_once(model: MetaTransformer, memory: Memory, inputs: tuple[Tensor, Tensor]) -> Tensor:
    """Logits of all tokens as one prompt: nothing is forgotten, so that the rule alone hides."""
    return model(*inputs, cache=cache_of(model, memory))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory.name)
@pytest.mark.parametrize("mechanism", FREE)
@pytest.mark.parametrize("pattern", [{}, {"pattern": "window_meta", "pattern_options": {"w": 3}}], ids=str)
@torch.no_grad()
def test_step_by_step_with_forgetting_equals_the_prompt_at_once(
    memory: Memory, mechanism: str, pattern: dict[str, Any]
) -> None:
    model, inputs = tiny(mechanism=mechanism, **pattern), batch()
    torch.testing.assert_close(
        step_by_step(model, memory, inputs), at_once(model, memory, inputs), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("memory", MEMORIES[2:], ids=lambda memory: memory.name)
@torch.no_grad()
def test_a_memory_is_the_pattern_that_it_says(memory: Memory) -> None:
    model, inputs = tiny(mechanism="none"), batch()
    seen = at_once(model, memory, inputs)
    assert not torch.allclose(seen, model(*inputs), atol=1e-2)
    model.pattern = RULES[memory.name]
    torch.testing.assert_close(seen, model(*inputs), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_meta_attention_forgets_what_self_attention_forgets() -> None:
    """Two attentions of a window of 5 reach 8 tokens back, though all are extra tokens."""
    inputs = batch(fraction=1.0)
    changed = inputs[0].clone()
    changed[:, 0] += 1
    for name, same in (("window", True), ("all", False)):
        model = tiny(n_layers=1)
        memory = Memory(name, window=W) if name == "window" else Memory(name)
        before, after = (step_by_step(model, memory, (tokens, inputs[1])) for tokens in (inputs[0], changed % 50))
        far = slice(2 * (W - 1) + 1, None)
        assert torch.equal(before[:, far], after[:, far]) == same, name


@pytest.mark.one_in(3)
@pytest.mark.parametrize("position", [name for name, kind in positions.FAMILIES.items() if not kind.needs_task_ids])
@torch.no_grad()
def test_every_encoding_works_with_forgotten_keys(position: str) -> None:
    for drop in ("none", "both"):
        options = {"position": position, "drop_positions": drop}
        model, inputs = tiny(**options, pattern="window_meta", pattern_options={"w": 3}), batch()
        torch.testing.assert_close(step_by_step(model, Memory(), inputs), model(*inputs), atol=2e-5, rtol=1e-5)
        model = tiny(**options)
        steps = step_by_step(model, MEMORIES[-1], inputs)
        torch.testing.assert_close(steps, at_once(model, MEMORIES[-1], inputs), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["window", "window+extra", "sinks+window"])
@torch.no_grad()
def test_a_window_longer_than_the_text_forgets_nothing(name: str) -> None:
    model, inputs = tiny(), batch()
    torch.testing.assert_close(
        step_by_step(model, Memory(name, window=LENGTH), inputs), model(*inputs), rtol=1e-5, atol=1e-5
    )


@torch.no_grad()
def test_memory_of_window_meta_is_bounded_but_for_extra_tokens() -> None:
    page, n = 8, 200
    inputs = batch(n=2, length=n, fraction=0.1)
    extra = int(inputs[1].sum(dim=1).max())
    model = tiny(pattern="window_meta", pattern_options={"w": W}, max_positions=256)
    cache = cache_of(model, page=page)
    steps = [model(inputs[0][:, t : t + 1], inputs[1][:, t : t + 1], cache=cache) for t in range(n)]
    torch.testing.assert_close(torch.cat(steps, dim=1), model(*inputs), atol=2e-5, rtol=1e-5)
    assert cache.length == n
    for name, most in (("self_attention", W + extra + 2 * page), ("meta_attention", extra + page)):
        memory = cache.layers[1][name]
        assert memory.rows <= most, name
        assert memory.k.shape[2] <= most, name
    window = cache_of(model, Memory("window", window=W), page=page)
    model(*inputs, cache=window)
    for t in range(3):
        model(inputs[0][:, t : t + 1], inputs[1][:, t : t + 1], cache=window)
    assert window.layers[0]["self_attention"].rows <= W + 2 * page


@pytest.mark.one_in(3)
@pytest.mark.parametrize("memory", MEMORIES, ids=lambda memory: memory.name)
@pytest.mark.parametrize("position", ["rotary", "learned", "t5"])
def test_prompts_of_different_lengths_go_on_as_each_alone(memory: Memory, position: str) -> None:
    model, (tokens_BT, mask_BT) = tiny(position=position), batch()
    padding_B = torch.tensor([0, 7, 15])
    sampled: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0, "memory": memory, "repetition_penalty": 1.3}
    mask_BT = mask_BT & (torch.arange(LENGTH) >= padding_B.unsqueeze(1))
    together = generate(model, tokens_BT, mask_BT, padding_B=padding_B, **sampled)
    for tokens, mask, n, out in zip(tokens_BT, mask_BT, padding_B.tolist(), together, strict=True):
        alone = generate(model, tokens[None, n:], mask[None, n:], **sampled)
        assert torch.equal(out[n:], alone[0])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mechanism": "landmark"}, "model.mechanism='landmark'"),
        ({"mechanism_options": {"fill": -1e4}}, "model.mechanism='meta'"),
        ({"position": "dape", "position_options": {"kernel": 3}}, "model.position='dape'"),
    ],
)
def test_what_looks_at_other_keys_keeps_all(options: dict[str, Any], named: str) -> None:
    model, inputs = tiny(**options), batch()
    with pytest.raises(UserError, match=f"memory='window': {named} looks at keys"):
        cache_of(model, Memory("window"))
    with torch.no_grad():
        torch.testing.assert_close(step_by_step(model, Memory(), inputs), model(*inputs), atol=5e-3, rtol=1e-4)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "windows"}, "memory='windows': expected one of auto, .*did you mean 'window'"),
        ({"name": "window", "window": 0}, "memory_window=0: expected 1 or more tokens"),
        ({"name": "window", "sinks": 4}, r"memory_sinks=4: memory='window' has none; expected with sinks\+window"),
        ({"window": 4}, "memory_window=4: memory='auto' has none"),
    ],
)
def test_what_no_memory_is(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Memory(**given)


@pytest.mark.parametrize("padding", [None, [0, 7, 15]])
@torch.no_grad()
def test_extra_tokens_that_come_while_writing_are_read_as_those_of_a_prompt(padding: list[int] | None) -> None:
    """Greedy, an extra token behind every second new one: each new token is the likeliest of a full pass."""
    model, (tokens_BT, mask_BT), asked = tiny(), batch(), []
    padding_B = torch.tensor(padding or [0, 0, 0])
    mask_BT = mask_BT & (torch.arange(LENGTH) >= padding_B.unsqueeze(1))

    def extra_next(next_B: Tensor) -> list[int]:
        asked.append(next_B)
        return [9] if len(asked) % 2 == 0 else []

    steps = stream(
        model,
        tokens_BT,
        mask_BT,
        max_new_tokens=7,
        sampling=Sampling(temperature=0),
        forbidden_ids=[9],
        padding_B=None if padding is None else padding_B,
        extra_next=extra_next,
    )
    for number, next_B in enumerate(steps, 1):
        for b, n in enumerate(padding_B.tolist()):
            logits_V = model(tokens_BT[b : b + 1, n:], mask_BT[b : b + 1, n:])[0, -1]
            logits_V[9] = -torch.inf
            assert int(logits_V.argmax()) == int(next_B[b])
        new_BT = torch.stack((next_B, torch.full_like(next_B, 9)), dim=1)[:, : 2 - number % 2]
        tokens_BT = torch.cat((tokens_BT, new_BT), dim=1)
        mask_BT = torch.cat((mask_BT, torch.tensor([[False, True]]).expand(3, 2)[:, : 2 - number % 2]), dim=1)
    assert number == 7


def test_every_rule_is_tried_here() -> None:
    assert {memory.name for memory in MEMORIES} == set(OPTIONS)
