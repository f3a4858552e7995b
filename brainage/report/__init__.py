"""Figures and pages, made from files; never imports torch."""
