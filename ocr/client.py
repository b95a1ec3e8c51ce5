"""The public name of `ocr.serving.client`, which loads no TensorFlow."""

from ocr.serving.client import Client

__all__ = ["Client"]
