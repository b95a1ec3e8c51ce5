"""The model for printed Chinese that ships with the package, an export like those of `ocr_export`."""

import pathlib

FOLDER = pathlib.Path(__file__).parent  # of its versions
