"""Reads image files, with an exported model or through a server: prints file, text and confidence, separated by tabs, a line an
image.

For example:

  ocr_predict line1.png line2.jpg
  ocr_predict --saved_model=export line1.png line2.jpg
  ocr_predict --saved_model=export --picture=read.png *.png
  ocr_predict --server=localhost:8500 line1.png line2.jpg
  ocr_predict --engine=beam --beam_options=--runner=FlinkRunner --input='images/**/*.png' --output=read/lines

A file that cannot be read has an empty text and confidence 0; the reason goes to stderr, and the exit status is 1.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from ocr import beam, charset, options
from ocr.evaluation import picture as sheet
from ocr.serving import predict
from tfrecords import files
from tfrecords.errors import InputError
from tools import command

FLAGS = flags.FlagValues()
flags.DEFINE_string("saved_model", "pretrained", "Export, or one version in it; pretrained: for Chinese.", flag_values=FLAGS)
flags.DEFINE_string("server", "", "HOST:PORT of a gRPC server that reads, in place of an export.", flag_values=FLAGS)
flags.DEFINE_float("timeout_s", 60.0, "Seconds that the server has for a request of up to 32 images.", flag_values=FLAGS)
flags.DEFINE_string("tls_ca", "", "PEM file with the certificate that the server's is signed by.", flag_values=FLAGS)
flags.DEFINE_string("engine", "local", "local, or beam to read by the million with Apache Beam.", flag_values=FLAGS)
flags.DEFINE_string("input", "", "With --engine=beam: pattern of image files, or of files of records.", flag_values=FLAGS)
flags.DEFINE_string("output", "", "Likewise: what the names of the output begin with, JSON lines.", flag_values=FLAGS)
flags.DEFINE_string("beam_options", "", "Likewise: options of Beam, a runner among them.", flag_values=FLAGS)
flags.DEFINE_string("picture", "", "PNG file to draw: the images with what was read.", flag_values=FLAGS)
flags.DEFINE_string("picture_font", "", "Font file for the texts in the picture, where they are not Latin.", flag_values=FLAGS)


def main(values: dict[str, Any], paths: list[str]) -> dict | None:
    options.check_choice(values, engine=("local", "beam"))
    options.check_range(values, timeout_s=(0.001, 1e6))
    if values["engine"] == "beam":
        return _with_beam(values, paths)
    if not paths:
        raise InputError("no image named; give their files as arguments")
    picture = pathlib.Path(values["picture"])
    if values["picture"]:
        if not picture.parent.is_dir():
            raise InputError(f"--picture={picture}: no such folder")
        if picture.suffix.lower() != ".png":
            raise InputError(f"--picture={picture}: must end in .png")
    sheet.open_font(values["picture_font"])
    answered, bad = [], False
    for answer in predict.predict_files(_reader(values), paths):
        print(f"{files.escape_cell(answer.path)}\t{answer.text}\t{answer.confidence:.4f}", flush=True)
        answered.append(answer)
        if answer.reason:
            print(f"{files.escape_cell(answer.path)}: {answer.reason}", file=sys.stderr)
            bad = True
    if values["picture"]:
        font = values["picture_font"]
        if lacking := sheet.missing_glyphs([answer.text for answer in answered], font):
            print(f"{picture}: its font lacks {charset.describe(lacking)}; name another with --picture_font", file=sys.stderr)
        rows = [(sheet.open_image(answer.path), answer.text, f"{answer.confidence:.1%}") for answer in answered]
        files.write_bytes(picture, sheet.draw(rows, font))
    if bad:
        sys.exit(1)
    return None


def _with_beam(values: dict[str, Any], paths: list[str]) -> dict:
    options.check_given(input=values["input"], output=values["output"])
    if paths or values["server"] or values["picture"]:
        raise InputError("--engine=beam: takes --input in place of images, and neither --server nor --picture")
    beam.check_installed()
    command.import_tensorflow()
    from ocr.serving import predict_beam

    model = pathlib.Path(values["saved_model"])
    return predict_beam.run(model, values["input"], values["output"], values["beam_options"])


def _reader(values: dict[str, Any]) -> predict.ReadFunction:
    if values["server"]:
        from ocr.serving.client import Client

        return Client(values["server"], values["timeout_s"], authority=values["tls_ca"])
    command.import_tensorflow()
    from ocr.serving import saved_model

    return saved_model.load(pathlib.Path(values["saved_model"]))


def run() -> None:
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
