"""htr-ray: self-supervised pre-training and few-label recognition of handwriting, as one Ray sweep."""

__version__ = "0.1.0"
