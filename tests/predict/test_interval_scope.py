"""The sentence beside every age."""

from __future__ import annotations

from brainage.config import CardRecipe, OtherScannersRecipe
from brainage.predict.interval_scope import interval_scope, unknown_scope


def card(**changed: float) -> CardRecipe:
    figures = {"scans": 12, "sites": 3, "mae": 7.0, "largest": 21.5, "site_gap": 9.7}
    return CardRecipe(scanner="one 1.5 T", other_scanners=OtherScannersRecipe(**{**figures, **changed}))


def test_it_gives_the_cards_figures() -> None:
    assert interval_scope(card()) == (
        "The interval holds for the training scanner only (one 1.5 T): 12 scans from 3 other sites were "
        "off by 7.0 years on average and 21.5 at most, and one site looked 9.7 years too old."
    )


def test_the_direction_of_the_bias_and_single_things() -> None:
    said = interval_scope(card(site_gap=-3.25, scans=1, sites=1))
    assert said.endswith("one site looked 3.2 years too young.")
    assert "1 scan from 1 other site were" not in said
    assert "1 scan from 1 other site was off" in said


def test_what_was_not_measured_is_said() -> None:
    assert interval_scope(CardRecipe(scanner="one 1.5 T")) == unknown_scope()


def test_an_age_without_an_interval_says_so() -> None:
    said = interval_scope(card(), calibrated=False)
    assert said.startswith(
        "The age has no interval, and is meant for the training scanner only (one 1.5 T): 12"
    )
    assert "interval holds" not in interval_scope(CardRecipe(), calibrated=False)
