"""From a stored scan to the model grid: one MONAI transform a file, and the chain of them."""
