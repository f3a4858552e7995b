"""Image classification: an image encoder and a linear head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from brainage.errors import ConfigError
from brainage.models.image_encoder import ImageEncoder
from brainage.nn import RoutingRecord
from brainage.vision_config import ImageModelRecipe


@dataclass(frozen=True, eq=False)
class Classification:
    """Logits (B, C) of the classes, and one routing record for each mixture block, in order."""

    logits_BC: Tensor
    routing: list[RoutingRecord]


class ImageClassifier(nn.Module):
    """A vision transformer (arXiv 2010.11929) from square images to classes.

    Args:
        recipe: sizes and router.
        num_classes: number of classes C.

    Raises:
        ConfigError: naming field, value and rule.
    """

    def __init__(self, recipe: ImageModelRecipe, num_classes: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise ConfigError("num_classes", num_classes, "must be at least 2")
        self.recipe = recipe
        self.encoder = ImageEncoder(recipe)
        self.head = nn.Linear(recipe.dim, num_classes)
        # All classes are equally likely at the start.
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images_BCHW: Tensor) -> Classification:
        """Classify images.

        Args:
            images_BCHW: red, green and blue in [0, 255], of any dtype, at the model's size.

        Raises:
            ConfigError: for images of another shape.
        """
        pooled_BD, routing = self.encoder(images_BCHW)
        return Classification(self.head(pooled_BD).float(), routing)
