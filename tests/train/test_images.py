"""Training of image classifiers, on pictures that the test draws."""

from __future__ import annotations

import pytest
import torch
from lightning.fabric import Fabric

from brainage.data.image_stream import StreamedPixels
from brainage.data.images import Images, StreamedImages
from brainage.data.located import LocatedFiles
from brainage.errors import InputError
from brainage.models.image_classifier import ImageClassifier
from brainage.predict.images import evaluate_classifier
from brainage.train.images import ImageTask, predict_logits, top_k_hits
from brainage.train.images_run import train_classifier
from brainage.vision_config import VisionRecipe


def drawn(count, seed, noise=10):
    """Squares on noise: bright at the left (class 0), at the right (1) or below (2)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    pixels = 100 + noise * torch.randn(count, 3, 8, 8, generator=generator)
    for index, label in enumerate(labels):
        rows, columns = ((slice(0, 4), slice(0, 4)), (slice(0, 4), slice(4, 8)), (slice(4, 8), slice(0, 8)))[
            label
        ]
        pixels[index, :, rows, columns] += 80
    return Images(pixels.clamp(0, 255).to(torch.uint8), labels, ("left", "right", "below"), ("left/bad.jpg",))


def recipe(**model):
    sizes = {"image_size": 8, "patch": 4, "dim": 16, "depth": 1, "num_heads": 2, "hidden_dim": 16}
    sizes |= {"moe_blocks": [0], "num_experts": 4, "rank": 3, **model}
    train = {"folds": 0, "epochs": 12, "batch_size": 10, "lr": 0.01, "ema": 0.8, "precision": "32-true"}
    augment = {"flip": 0, "scale": 0.9, "mixup": 0.1}
    return VisionRecipe.model_validate({"model": sizes, "train": train, "augment": augment})


def test_learns_and_writes_what_evaluation_reads(tmp_path):
    trained = train_classifier(drawn(60, 0), drawn(30, 1), recipe(), tmp_path / "run")
    result = evaluate_classifier(trained, drawn(30, 2))
    assert result["top1"] > 0.9
    assert result["top5"] == 1
    assert result["k"] == 3
    assert result["skipped"] == ["left/bad.jpg"]
    assert sum(row["num_images"] for row in result["classes"]) == 30
    assert len(result["routing"]) == 1
    assert (tmp_path / "run" / "model.safetensors").exists()
    log = (tmp_path / "run" / "log.csv").read_text("utf-8")
    assert "train_top1" in log
    assert "validation_top1" in log
    assert trained.facts["num_skipped"] == 1


@pytest.mark.parametrize("router", ["vmoe", "ermoe"])
def test_balancing_enters_the_loss_with_its_weight(router):
    plain, balanced = recipe(router=router), recipe(router=router, balancing=0.5)
    torch.manual_seed(0)
    model = ImageClassifier(plain.model, 3)
    fabric = Fabric(accelerator="cpu", devices=1)
    batch = next(ImageTask(model, drawn(30, 0), plain).batches(fabric, 0))
    losses = []
    for settings in (plain, balanced):
        torch.manual_seed(1)
        losses.append(ImageTask(model, drawn(30, 0), settings).loss(model, batch).loss)
    assert losses[1] > losses[0]


def test_batches_repeat_for_the_same_epoch_only():
    fabric = Fabric(accelerator="cpu", devices=1)
    settings = recipe()
    task = ImageTask(ImageClassifier(settings.model, 3), drawn(60, 0), settings)
    first, again, other = (list(task.batches(fabric, epoch)) for epoch in (0, 0, 1))
    assert len(first) == task.steps_per_epoch == 6
    assert all(
        torch.equal(a, b) for x, y in zip(first, again, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert not torch.equal(first[0][0], other[0][0])


def test_prediction_does_not_depend_on_the_batch():
    model = ImageClassifier(recipe().model, 3)
    torch.nn.init.normal_(model.head.weight)
    images = drawn(10, 0)
    torch.testing.assert_close(predict_logits(model, images, 3)[0], predict_logits(model, images, 10)[0])
    assert model.training


def test_top_k_by_hand():
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [1.0, 1.0, 1.0]])
    labels = torch.tensor([0, 1, 0])
    assert top_k_hits(logits, labels, 1).tolist() == [True, False, False]
    assert top_k_hits(logits, labels, 2).tolist() == [True, True, False]
    assert top_k_hits(logits, labels, 3).tolist() == [True, True, True]


def test_evaluation_by_hand():
    """A model that always says class 0."""
    settings = recipe(router="dense")
    model = ImageClassifier(settings.model, 3)
    model.head.bias.data[0] = 1
    from brainage.models.classifier_weights import TrainedClassifier

    result = evaluate_classifier(TrainedClassifier(model, settings, ("left", "right", "below")), drawn(9, 0))
    assert result["top1"] == pytest.approx(1 / 3)
    assert [row["top1"] for row in result["classes"]] == [1, 0, 0]
    assert [row["taken_for"] for row in result["classes"]] == [None, "left", "left"]
    assert result["confusion"] == [[3, 0, 0]] * 3
    assert [
        (row["class"], row["taken_for"], row["num_images"], row["share"]) for row in result["confused"]
    ] == [
        ("right", "left", 3, 1.0),
        ("below", "left", 3, 1.0),
    ]
    assert result["routing"] == []


def test_a_batch_of_unreadable_images_alone_is_one_sentence(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.png").write_text("text")
    pixels = StreamedPixels(LocatedFiles(["a.png", "b.png"], tmp_path), 8, 1.0, 0, set())
    images = StreamedImages(pixels, torch.tensor([0, 1]), ("a", "b"))
    task = ImageTask(ImageClassifier(recipe().model, 2), images, recipe())
    with pytest.raises(InputError, match=r"a.png: found no readable image in a batch, and 2 unreadable"):
        next(task.batches(Fabric(accelerator="cpu", devices=1), 0))
