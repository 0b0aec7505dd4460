"""bench: which way of using pretrained weights is best on your images, measured under one protocol."""

__version__ = "0.1.0"
