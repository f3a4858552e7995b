"""Models, built from recipes, and their weights."""
