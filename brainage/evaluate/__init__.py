"""Metrics of brain-age predictions."""
