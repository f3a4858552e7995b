"""Brain age from T1 MRI with an eigen-reparameterized mixture of experts. Research use only."""

__version__ = "0.1.0"
