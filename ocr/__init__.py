"""Trains and serves a recogniser of text lines on TensorFlow."""

import os

__version__ = "0.2.0"  # the only place; setup.cfg reads it

# Under Keras 3 the loop and the export need its TensorFlow backend, whatever ~/.keras/keras.json says.
os.environ["KERAS_BACKEND"] = "tensorflow"
