"""Several kinds of meta-tokens go out to Hugging Face and come back: ids, rows, and what is never written."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_metatok.export import insert_meta
from lightning_metatok.export.read import read, write_start
from lightning_metatok.export.write import write
from lightning_metatok.lit.checkpoints.load import load_trained
from lightning_metatok.lit.checkpoints.marks import Marks
from lightning_metatok.model import TransformerConfig
from lightning_metatok.model.adapted import AdaptedTransformer
from tests.export.conftest import Make

MARKS = Marks(0.1, "chunk_end", {"c": 4, "n": 3})


@pytest.fixture
def trained(make: Make) -> Any:
    made = make()
    return replace(made, tokenizer=made.tokenizer.with_kinds(3), marks=MARKS)


def test_out_and_back(trained: Any, tmp_path: Path) -> None:
    """As this package's class: config.json says which ids are kinds, and all of them are meta-tokens there."""
    ids, to = trained.tokenizer.meta_ids, tmp_path / "out"
    write(trained, to)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(to).eval(), AutoTokenizer.from_pretrained(to)
    assert (model.config.meta_token_id, model.config.meta_ids) == (ids[0], ids)
    assert tokenizer("<|meta_2|><|meta|>")["input_ids"] == [ids[2], ids[0]]
    prompt = trained.tokenizer.encode("the old miller sees a fish")
    row = insert_meta(prompt, meta_id=model.config.meta_ids, marks=model.config.marks)
    assert [id for id in row if id in ids] == [ids[i % 3] for i in range(3 * (len(prompt) // 4))]
    assert insert_meta(row, meta_id=model.config.meta_ids, marks=model.config.marks) == row
    tokens_BT = torch.tensor([row])
    with torch.no_grad():
        theirs = model(tokens_BT, labels=tokens_BT)
        ours_BTV = trained.model(tokens_BT, torch.isin(tokens_BT, torch.tensor(ids)))
    torch.testing.assert_close(theirs.logits, ours_BTV, atol=1e-5, rtol=1e-5)
    text_T = ~torch.isin(tokens_BT[0, 1:], torch.tensor(ids))
    nll_T = torch.nn.functional.cross_entropy(ours_BTV[0, :-1], tokens_BT[0, 1:], reduction="none")
    torch.testing.assert_close(theirs.loss, nll_T[text_T].mean())
    with torch.no_grad():
        model.model.embedding.weight[list(ids)] = 9 * trained.model(tokens_BT, return_hidden=True)[0, -1]
    new = model.generate(tokens_BT, max_new_tokens=5, do_sample=False, eos_token_id=None, pad_token_id=0)[0, len(row) :]
    assert set(new.tolist()).isdisjoint(ids)
    assert set(ids) <= set(model.generation_config.suppress_tokens)
    back = read(str(to))
    assert back.tokenizer.meta_ids == ids
    assert all(torch.equal(one, trained.model.state_dict()[name]) for name, one in back.model.state_dict().items())


def test_a_model_with_one_kind_gets_more_when_it_is_read(make: Make, tmp_path: Path) -> None:
    """As a stock model: new rows are the mean of all others, and the folder it starts from asks for as many kinds."""
    made = make(mechanism="none", position="learned", bias=True, activation="gelu_tanh", vocab_size=300)
    assert write(made, tmp_path / "out").family is not None
    start = read(str(tmp_path / "out"), kinds=3)
    assert start.tokenizer.meta_ids == (made.tokenizer.meta_id, 300, 301)
    rows_VD = start.model.embedding.weight
    assert torch.equal(rows_VD[:300], made.model.embedding.weight)
    torch.testing.assert_close(rows_VD[300:], rows_VD[:300].mean(dim=0).expand(2, -1))
    write_start(start, tmp_path / "start")
    model, tokenizer, _ = load_trained(tmp_path / "start" / "start.ckpt")
    assert (len(tokenizer.kinds), len(model.embedding.weight)) == (3, 302)
    assert "meta_kinds: 3" in (tmp_path / "start" / "config.yaml").read_text()


def test_of_a_base_each_kind_has_an_embedding_of_its_own(make: Make, tmp_path: Path) -> None:
    made = make(mechanism="none", position="learned", bias=True, activation="gelu_tanh", vocab_size=300)
    write(made, tmp_path / "base")
    sizes = {"n_layers": 2, "n_heads": 2, "d_model": 16, "max_positions": 48}
    config = TransformerConfig(**sizes, base=str(tmp_path / "base"), vocab_size=302, kinds_from=300)
    model = AdaptedTransformer(config, seed=0)
    ids = (made.tokenizer.meta_id, 300, 301)
    tokens_BT = torch.tensor([[5, 6, 7, *ids, 8]])
    mask_BT = torch.isin(tokens_BT, torch.tensor(ids))
    model(tokens_BT, mask_BT)[0, -1, :300].square().sum().backward()
    assert model.kinds_KD is not None
    gradients = torch.cat((model.extra_D.grad[None], model.kinds_KD.grad))  # type: ignore[index]
    assert (gradients.abs().sum(dim=1) > 0).all()
    before_V = model(tokens_BT, mask_BT)[0, -1]
    with torch.no_grad():
        model.kinds_KD[1] += 1.0
    assert not torch.equal(model(tokens_BT, mask_BT)[0, -1], before_V)
    without_BT = torch.tensor([[5, 6, 7, ids[0], 300, 300, 8]])
    with torch.no_grad():
        model.kinds_KD[1] -= 1.0
        assert not model(without_BT, mask_BT)[0, -1, 300:].gt(-1e30).any()
