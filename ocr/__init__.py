"""Trains and serves a recogniser of text lines on TensorFlow."""

import os

# Under Keras 3 the loop and the export need its TensorFlow backend, whatever ~/.keras/keras.json says.
os.environ["KERAS_BACKEND"] = "tensorflow"
