"""Predicted against true age, as it is and with the age bias taken out.

The line predicted = slope * age + intercept was fitted to out-of-fold predictions of the training cohort and
travels with the model (``age_bias`` of its facts), so nothing of the scans at hand enters their correction.
"""

from __future__ import annotations

from brainage.data.tables import GAP_COLUMNS
from brainage.evaluate.bias import AgeBias, correct_cole, correct_de_lange
from brainage.models.weights import TrainedModel


def gap_columns(trained: TrainedModel, predicted: float, age: float | None) -> dict[str, str]:
    """What the table of ages says beside a prediction, years.

    ``gap`` is predicted - chronological age. ``gap_cole`` stretches the prediction, ``gap_de_lange`` takes
    the gap that is expected at that age away; both say how far a subject lies from people of the same age in
    the training cohort, and neither makes the prediction better. Empty where age or line is unknown.
    """
    row = dict.fromkeys(GAP_COLUMNS, "")
    facts = trained.facts.get("age_bias")
    bias = AgeBias(float(facts["slope"]), float(facts["intercept"])) if facts else None
    if bias is not None:
        row |= {"bias_slope": f"{bias.slope:.6g}", "bias_intercept": f"{bias.intercept:.6g}"}
    if age is None:
        return row
    row |= {"age": f"{age:g}", "gap": f"{predicted - age:.2f}"}
    if bias is not None:
        row["gap_de_lange"] = f"{float(correct_de_lange(predicted, age, bias)) - age:.2f}"
        if bias.slope > 0:
            row["gap_cole"] = f"{float(correct_cole(predicted, bias)) - age:.2f}"
    return row
