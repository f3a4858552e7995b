"""The dual encoder and its file."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from brainage.data.tokenizer import encode, learn_tokenizer
from brainage.errors import CheckpointError, ConfigError
from brainage.models.dual_encoder import DualEncoder, of_words
from brainage.models.dual_encoder_weights import TrainedRetriever, load_retriever, save_retriever
from brainage.retrieval_config import RetrievalRecipe

TOWER = {"dim": 16, "depth": 2, "num_heads": 2, "hidden_dim": 16, "num_experts": 4, "rank": 3}


def recipe(**settings):
    image = {**TOWER, "image_size": 8, "patch": 4, "moe_blocks": [1]}
    text = {**TOWER, "length": 6, "moe_blocks": [1], **settings.pop("text", {})}
    return RetrievalRecipe.model_validate({"image": image, "text": text, "embed_dim": 5, **settings})


@pytest.mark.parametrize("router", ["ermoe", "emoe", "vmoe", "cosine", "soft", "dense"])
def test_padding_and_neighbours_change_nothing(router):
    torch.manual_seed(0)
    model = DualEncoder(recipe(text={"router": router}), 20).double().eval()
    ids = torch.tensor([[3, 4, 1, 0, 0, 0], [5, 6, 7, 8, 9, 1]])
    together = model(ids_BN=ids)
    torch.testing.assert_close(together.text_BD.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(model(ids_BN=ids[:1]).text_BD, together.text_BD[:1])
    model.text.embed.weight.data[0] = 9  # the padding's own embedding
    torch.testing.assert_close(model(ids_BN=ids).text_BD, together.text_BD)
    if router != "dense":
        assert not together.text_routing[0].used_BNK[0, 3:].any()


@pytest.mark.parametrize("router", ["ermoe", "soft"])
def test_records_of_words_leave_the_padding_out(router):
    ids = torch.tensor([[3, 4, 1, 0, 0, 0], [5, 6, 7, 8, 9, 1]])
    (record,) = DualEncoder(recipe(text={"router": router}), 20).eval()(ids_BN=ids).text_routing
    (kept,) = of_words([record], ids)
    assert record.fallback_BN.sum() == 3
    assert not kept.fallback_BN.any()
    assert torch.equal(kept.gates_BNE[0], torch.cat((record.gates_BNE[0, :3], record.gates_BNE[1])))


def test_either_or_both():
    model = DualEncoder(recipe(), 20).eval()
    images, ids = torch.rand(2, 3, 8, 8) * 255, torch.tensor([[3, 1, 0, 0, 0, 0]])
    assert model(images).text_BD is None
    assert model(ids_BN=ids).image_BD is None
    both = model(images, ids)
    assert both.image_BD.shape == (2, 5)
    assert len(both.image_routing) == len(both.text_routing) == 1
    assert both.scale.item() == pytest.approx(1 / 0.07)
    model.log_scale.data.fill_(9)
    assert model(images).scale.item() == 100


def test_wrong_sizes_and_settings():
    model = DualEncoder(recipe(), 20)
    with pytest.raises(ConfigError, match="ids_BN"):
        model(ids_BN=torch.zeros(1, 5, dtype=torch.int64))
    for wrong in (
        {"augment": {"mixup": 0.1}},
        {"train": {"folds": 2}},
        {"train": {"batch_size": 1, "folds": 0}},
    ):
        with pytest.raises(ValidationError):
            recipe(**wrong)


def test_file_round_trip(tmp_path):
    tokenizer = learn_tokenizer(["red square", "blue circle"], 300)
    settings = recipe(tokenizer={"path": "/home/somebody/tokenizer.json"})
    model = DualEncoder(settings, tokenizer.get_vocab_size()).eval()
    path = tmp_path / "model.safetensors"
    save_retriever(path, TrainedRetriever(model, tokenizer, settings, {"name": "x"}))
    assert b"somebody" not in path.read_bytes()
    loaded = load_retriever(path)
    ids, _ = encode(loaded.tokenizer, ["a red circle"], 6)
    assert torch.equal(loaded.model(ids_BN=ids).text_BD, model(ids_BN=ids).text_BD)
    assert loaded.facts == {"name": "x"}
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(CheckpointError, match="damaged"):
        load_retriever(path)
