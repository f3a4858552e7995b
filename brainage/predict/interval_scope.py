"""What a prediction interval does not contain, in one sentence: what another scanner does to the age."""

from __future__ import annotations

from brainage.config import CardRecipe

# Of models, or files of ages, that say nothing of it.
UNKNOWN = (
    "The interval holds for scanners like the training's only; how far ages from other scanners are off was "
    "not measured."
)


def interval_scope(card: CardRecipe) -> str:
    """The sentence that stands beside every age: in the table, on the pages and in the model card.

    Args:
        card: of the recipe that the model was trained by.
    """
    measured = card.other_scanners
    if measured is None:
        return UNKNOWN
    scanner = f" ({card.scanner})" if card.scanner else ""
    way = "old" if measured.site_gap > 0 else "young"
    scans = f"{measured.scans} scans" if measured.scans != 1 else "1 scan"
    sites = f"{measured.sites} other sites" if measured.sites != 1 else "1 other site"
    were = "were" if measured.scans != 1 else "was"
    return (
        f"The interval holds for the training scanner only{scanner}: {scans} from {sites} {were} off by "
        f"{measured.mae:.1f} years on average and {measured.largest:.1f} at most, and one site looked "
        f"{abs(measured.site_gap):.1f} years too {way}."
    )
