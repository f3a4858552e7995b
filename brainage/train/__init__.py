"""One training loop for every track."""
