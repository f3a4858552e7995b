"""Cohorts, splits, datasets, augmentation and simulation."""
