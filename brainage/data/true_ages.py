"""Chronological ages by scan."""

from __future__ import annotations

import pandas as pd


class TrueAges:
    """Chronological ages by participant, and by session where the table names sessions.

    Args:
        people: of :func:`~brainage.data.participants.read_participants`.
    """

    def __init__(self, people: pd.DataFrame) -> None:
        self._by_session = bool((people["session_id"] != "").any())
        known = people[people["age"].notna()]
        sessions = known["session_id"] if self._by_session else [""] * len(known)
        self._years = dict(
            zip(zip(known["participant_id"], sessions, strict=True), known["age"].astype(float), strict=True)
        )

    def of(self, participant_id: str, session_id: str = "") -> float | None:
        """Years; None where the table has no age."""
        return self._years.get((participant_id, session_id if self._by_session else ""))
