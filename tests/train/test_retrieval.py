"""Training of dual encoders, on images that the test draws."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from lightning.fabric import Fabric

from brainage.data.tokenizer import learn_tokenizer, vocabulary_of
from brainage.errors import CheckpointError
from brainage.evaluate.retrieval import recall_table
from brainage.models.classifier_weights import TrainedClassifier, save_classifier
from brainage.models.dual_encoder import DualEncoder
from brainage.models.image_classifier import ImageClassifier
from brainage.predict.retrieval import evaluate_retriever
from brainage.train.fit import fit
from brainage.train.retrieval import RetrievalTask, contrast
from brainage.train.retrieval_run import train_retriever
from brainage.vision_config import VisionRecipe

PROGRAM = Path(__file__).with_name("toy_retrieval.py")


@pytest.fixture(scope="module")
def toy(load_program: Callable[[Path], ModuleType]) -> ModuleType:
    return load_program(PROGRAM)


def units(count, dim, seed):
    return F.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_loss_is_that_of_clip_without_shared_captions():
    image, text, ids = units(5, 4, 0), units(5, 4, 1), torch.arange(5)[:, None]
    loss, _ = contrast(image, text, ids, torch.tensor(3.0), same_text=True)
    logits = 3 * image @ text.T
    expected = (F.cross_entropy(logits, torch.arange(5)) + F.cross_entropy(logits.T, torch.arange(5))) / 2
    torch.testing.assert_close(loss, expected)


def test_captions_that_read_the_same_share_their_target():
    """Two pairs of one caption and vector: perfect unless each is pushed from the other's image."""
    vectors = torch.eye(3)[[0, 0, 1]]
    ids = torch.tensor([[7], [7], [8]])
    shared, right = contrast(vectors, vectors, ids, torch.tensor(50.0), same_text=True)
    apart, _ = contrast(vectors, vectors, ids, torch.tensor(50.0), same_text=False)
    # Either way the two cannot be told apart, which costs log 2 where a target is shared by two.
    assert float(shared) == pytest.approx(2 / 3 * 0.6931, abs=1e-3)
    assert float(apart) == pytest.approx(2 / 3 * 0.6931, abs=1e-3)
    assert float(right) == 1
    # What differs is where the gradient pulls: towards both images, or towards one.
    text = vectors.clone().requires_grad_()
    image = F.normalize(torch.tensor([[1.0, 0.2, 0.0], [1.0, -0.2, 0.0], [0.0, 1.0, 0.0]]), dim=-1)
    contrast(image, text, ids, torch.tensor(5.0), same_text=True)[0].backward()
    torch.testing.assert_close(text.grad[0], text.grad[1])


def test_learns_and_writes_what_evaluation_reads(toy, tmp_path):
    trained = train_retriever(
        toy.drawn(48, 0), toy.drawn(12, 1), toy.recipe(epochs=40), tmp_path / "run", recall_table
    )
    result = evaluate_retriever(trained, toy.drawn(12, 2))
    # Four images share each caption, so one in four is the best that can be expected of R@1.
    assert result["text_to_image_r1"] < 0.3
    assert result["text_to_image_r5"] > 0.85
    assert result["skipped"] == ["bad.png"]
    assert result["captions_cut"] == 0
    assert len(result["routing"]) == 1
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert "validation_text_to_image_r10" in (tmp_path / "run" / "log.csv").read_text("utf-8")
    assert trained.facts["num_captions"] == 95


def test_every_caption_is_drawn_and_an_epoch_repeats(toy):
    images, settings = toy.drawn(24, 0), toy.recipe()
    tokenizer = learn_tokenizer(images.captions, 400)
    task = RetrievalTask(DualEncoder(settings, vocabulary_of(tokenizer)), tokenizer, images, settings)
    fabric = Fabric(accelerator="cpu", devices=1)
    seen = set()
    for epoch in range(12):
        first, again = (list(task.batches(fabric, epoch)) for _ in range(2))
        assert len(first) == task.steps_per_epoch == 2
        for (pixels, ids), (pixels_again, ids_again) in zip(first, again, strict=True):
            assert torch.equal(pixels, pixels_again)
            assert torch.equal(ids, ids_again)
            seen |= {tuple(row) for row in ids.tolist()}
    assert len(seen) == len(set(images.captions)) == 7


def test_two_processes_contrast_as_one(toy, run_program, tmp_path, assert_same_training):
    done = run_program(PROGRAM, str(tmp_path / "two"), "2")
    assert done.returncode == 0, done.stderr
    settings = toy.recipe(epochs=2)
    images = toy.drawn(24, 0)
    tokenizer = learn_tokenizer(images.captions, 400)
    torch.manual_seed(0)
    task = RetrievalTask(DualEncoder(settings, vocabulary_of(tokenizer)), tokenizer, images, settings)
    fit(task, settings.train, tmp_path / "one")
    assert_same_training(tmp_path / "one", tmp_path / "two")


def test_the_image_tower_begins_from_a_classifier(toy, tmp_path):
    torch.manual_seed(5)
    settings = toy.recipe(epochs=1, lr=1e-9)
    classifier = ImageClassifier(settings.image, 3)
    given = TrainedClassifier(classifier.eval(), VisionRecipe(model=settings.image), ("a", "b", "c"))
    save_classifier(tmp_path / "m.safetensors", given)
    settings = settings.model_copy(update={"init": tmp_path / "m.safetensors"})
    trained = train_retriever(toy.drawn(24, 0), toy.drawn(6, 1), settings, tmp_path / "run")
    # A step this small leaves the weights where they began.
    for name, value in classifier.encoder.state_dict().items():
        torch.testing.assert_close(trained.model.image.state_dict()[name], value, atol=1e-6, rtol=0, msg=name)
    assert len(trained.facts["init"]) == 16
    assert str(tmp_path).encode() not in (tmp_path / "run" / "model.safetensors").read_bytes()
    # The same folder with other first weights is another training; the same weights elsewhere are not.
    (tmp_path / "moved.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes())
    moved = settings.model_copy(update={"init": tmp_path / "moved.safetensors"})
    again = train_retriever(toy.drawn(24, 0), toy.drawn(6, 1), moved, tmp_path / "run")
    assert again.facts["fingerprint"] == trained.facts["fingerprint"]
    torch.nn.init.normal_(classifier.head.weight)
    save_classifier(tmp_path / "moved.safetensors", given)
    with pytest.raises(CheckpointError, match=r"data\.init"):
        train_retriever(toy.drawn(24, 0), toy.drawn(6, 1), moved, tmp_path / "run")
    (tmp_path / "moved.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        train_retriever(toy.drawn(24, 0), toy.drawn(6, 1), moved, tmp_path / "run")
