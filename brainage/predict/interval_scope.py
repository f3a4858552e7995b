"""What a prediction interval does not contain, in one sentence: what another scanner does to the age."""

from __future__ import annotations

from brainage.config import CardRecipe

_WITH, _WITHOUT = "The interval holds for", "The age has no interval, and is meant for"
_UNMEASURED = (
    "{} scanners like the training's only; how far ages from other scanners are off was not measured."
)


def unknown_scope(calibrated: bool = True) -> str:
    """The sentence for ages of which nothing is known but whether they have intervals."""
    return _UNMEASURED.format(_WITH if calibrated else _WITHOUT)


def interval_scope(card: CardRecipe, calibrated: bool = True) -> str:
    """The sentence that stands beside every age: in the table, on the pages and in the model card.

    Args:
        card: of the recipe that the model was trained by.
        calibrated: whether its ages have intervals.
    """
    measured = card.other_scanners
    if measured is None:
        return unknown_scope(calibrated)
    scanner = f" ({card.scanner})" if card.scanner else ""
    way = "old" if measured.site_gap > 0 else "young"
    scans = f"{measured.scans} scans" if measured.scans != 1 else "1 scan"
    sites = f"{measured.sites} other sites" if measured.sites != 1 else "1 other site"
    were = "were" if measured.scans != 1 else "was"
    begin = _WITH if calibrated else _WITHOUT
    return (
        f"{begin} the training scanner only{scanner}: {scans} from {sites} {were} off by "
        f"{measured.mae:.1f} years on average and {measured.largest:.1f} at most, and one site looked "
        f"{abs(measured.site_gap):.1f} years too {way}."
    )
