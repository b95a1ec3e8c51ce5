"""Reads images with an exported model or a server, and prints a line `file<TAB>text<TAB>confidence` for each.

For example:

  ocr_predict line1.png line2.jpg
  ocr_predict --saved_model=export --json --min_confidence=0.9 lines
  curl -s https://example.com/line.png | ocr_predict -
  ocr_predict --saved_model=export --picture=read.png *.png
  ocr_predict --server=localhost:8500 line1.png line2.jpg
  ocr_predict --saved_model=edge/model.onnx line1.png
  ocr_predict --saved_model=export --pattern=9999-99-99 date.png
  ocr_predict --saved_model=export --texts=names.txt
  ocr_predict --engine=beam --beam_options=--runner=FlinkRunner --input='images/**/*.png' --output=read/lines

Of a folder its image files are read, and those in its folders, in the order of their names; - is an image on standard input.
--allowed and --pattern say what the texts may be; the confidence is then that of the text, given that. A pattern is digits,
date, amount, or a template such as AA-9999: 9 is any digit, A any capital Latin letter, a any small one, + after a character
one or more of these, and a backslash before a character that character itself, as all others are.
--texts names a file of lines `image<TAB>text`; an image may be on several. Of its texts the most probable one is printed, with
its confidence and the natural logarithm of its probability: `file<TAB>text<TAB>confidence<TAB>log_probability`.
A file that cannot be read has an empty text and confidence 0; the reason goes to stderr, and the exit status is 1.
A line below --min_confidence has an empty text and its confidence; stderr says so, and the exit status stays as it was.
"""

import functools
import json
import math
import pathlib
import sys
from typing import Any

from absl import flags

from ocr import beam, charset, options
from ocr.evaluation import picture
from ocr.serving import edge, image_files, predict, questions
from tfrecords import files
from tfrecords.errors import InputError

from .cli import command, tensorflow_import

FLAGS = flags.FlagValues()
flags.DEFINE_string(
    "saved_model",
    "pretrained",
    "Export, or one version in it; pretrained: the shipped model for Chinese. Or a file of ocr_export --format=onnx or litert, "
    "which is read without TensorFlow: edge/model.onnx.",
    flag_values=FLAGS,
)
flags.DEFINE_string("server", "", "HOST:PORT of a gRPC server to use instead of an export.", flag_values=FLAGS)
flags.DEFINE_string("model_name", "ocr", "With --server: name of the model there.", flag_values=FLAGS)
flags.DEFINE_float("timeout_s", 60.0, "With --server: timeout in seconds of a request of up to 32 images.", flag_values=FLAGS)
flags.DEFINE_string(
    "tls_ca",
    "",
    "With --server: PEM file with the certificate of the authority that signed the server's, for TLS.",
    flag_values=FLAGS,
)
flags.DEFINE_string("engine", "local", "local, or beam: Apache Beam, for millions of images.", flag_values=FLAGS)
flags.DEFINE_string("input", "", "With --engine=beam: glob pattern of image files or of record files.", flag_values=FLAGS)
flags.DEFINE_string(
    "output", "", "With --engine=beam: prefix of the names of the output files, which are JSON lines.", flag_values=FLAGS
)
flags.DEFINE_string("beam_options", "", "With --engine=beam: its options, a runner among them.", flag_values=FLAGS)
flags.DEFINE_bool(
    "json",
    False,
    "Print a JSON object for each image: file, text, confidence, status, and the reason if it has no text.",
    flag_values=FLAGS,
)
flags.DEFINE_bool("follow_links", False, "Also read what links in a folder lead to outside of it.", flag_values=FLAGS)
flags.DEFINE_float(
    "min_confidence",
    0.0,
    "Print no text that was read with a lower confidence; ocr_eval --report shows which errors that leaves.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "picture",
    "",
    f"PNG file to write with the lines as they were read and their texts, of the first {picture.MAX_ROWS} images.",
    flag_values=FLAGS,
)
flags.DEFINE_string("picture_font", "", "Font file for the texts in the picture, if they are not Latin.", flag_values=FLAGS)
flags.DEFINE_string("allowed", "", "The characters that may occur in the texts.", flag_values=FLAGS)
flags.DEFINE_string("pattern", "", "Which texts are possible: digits, date, amount, or such as 9999-99-99.", flag_values=FLAGS)
flags.DEFINE_string("texts", "", "File of texts to choose from: a line `image<TAB>text` for each.", flag_values=FLAGS)
tensorflow_import.define_memory_growth(FLAGS, default=True)


def main(values: dict[str, Any], paths: list[str]) -> dict | None:
    """Reads image files and prints a table."""
    options.check_choice(values, engine=beam.ENGINES)
    options.check_range(values, timeout_s=(0.001, 1e6), min_confidence=(0, 1))
    if values["engine"] == "beam":
        return _predict_with_beam(values, paths)
    if values["texts"]:
        _score(values, paths)
        return None
    if not paths:
        raise InputError("no image named; give files or folders as arguments, or - for standard input")
    target = pathlib.Path(values["picture"])
    if values["picture"]:
        if image_files.STDIN in paths:
            raise InputError("--picture: not drawn of standard input; give a file")
        if not target.parent.is_dir():
            raise InputError(f"--picture={target}: no such folder")
        if target.suffix.lower() != ".png":
            raise InputError(f"--picture={target}: must end in .png")
    picture.open_font(values["picture_font"])
    predictions, failed = [], False
    images = image_files.read(paths, values["follow_links"])
    reader: Any = _line_reader(values)
    if values["allowed"] or values["pattern"]:
        reader = functools.partial(_read_constrained, reader, values)
    for read in predict.predict_images(reader, images):
        prediction = predict.withhold(read, values["min_confidence"])
        print(_json(prediction) if values["json"] else _row(prediction), flush=True)
        predictions.append(prediction)
        _report(prediction)
        failed = failed or bool(prediction.reason)
    if values["picture"]:
        font, drawn = values["picture_font"], predictions[: picture.MAX_ROWS]
        if missing := picture.missing_glyphs([prediction.text for prediction in drawn], font):
            print(f"{target}: its font lacks {charset.describe(missing)}; name another with --picture_font", file=sys.stderr)
        if len(drawn) < len(predictions):
            print(f"{target}: shows the first {len(drawn)} of {len(predictions)} images", file=sys.stderr)
        tensorflow_import.import_tensorflow()
        # What was not read is not opened either: a link may lead out of a folder.
        lines = picture.open_lines(["" if each.reason else each.path for each in drawn])
        rows = [(line, read.text, f"{read.confidence:.1%}") for line, read in zip(lines, drawn, strict=True)]
        files.write_bytes(target, picture.draw(rows, font))
    if failed:
        sys.exit(1)
    return None


def _read_constrained(reader: Any, values: dict[str, Any], encoded: list[bytes]) -> tuple[list[str], Any, Any]:
    """Reads a batch, as `predict.ReadFunction` does."""
    texts, confidences, _, statuses = reader.constrained(encoded, values["allowed"], values["pattern"])
    return texts, confidences, statuses


def _score(values: dict[str, Any], paths: list[str]) -> None:
    """Prints the most probable of each image's texts."""
    if paths or values["allowed"] or values["pattern"] or values["picture"]:
        raise InputError("--texts: names the images too, and takes no --allowed, --pattern or --picture")
    texts = questions.read_texts(values["texts"])
    reader: Any = _line_reader(values)
    failed = False
    for path, own in texts.items():
        content, reason = image_files.read_file(path)
        try:
            (score,) = reader.score([content], [own])
        except InputError as error:
            raise InputError(f"{files.escape_cell(path)}: {error}") from error
        text = own[score.best] if score.best >= 0 else ""
        log_probability = float(score.log_probability[score.best]) if score.best >= 0 else -math.inf
        reason = reason or predict.explain(score.status, content)
        warning = "none of its texts is possible" if score.best < 0 and not reason else ""
        scored = predict.Prediction(path, text, math.exp(log_probability), reason, score.status, warning)
        prediction = predict.withhold(scored, values["min_confidence"])
        if values["json"]:
            listed = [None if math.isinf(value) else round(float(value), 6) for value in score.log_probability]
            agreement = score.agreement[score.best] if text else []
            print(
                _json(
                    prediction,
                    log_probability=None if math.isinf(log_probability) else round(log_probability, 6),
                    agreement=[round(float(value), 6) for value in agreement],
                    missing=score.missing,
                    texts=[{"text": each, "log_probability": value} for each, value in zip(own, listed, strict=True)],
                ),
                flush=True,
            )
        else:
            print(f"{_row(prediction)}\t{log_probability:.4f}", flush=True)
        _report(prediction)
        failed = failed or bool(reason)
    if failed:
        sys.exit(1)


def _report(prediction: predict.Prediction) -> None:
    """Says on stderr what there is to say about an image."""
    if messages := [each for each in (prediction.reason, prediction.withheld, prediction.warning) if each]:
        print(f"{files.escape_cell(prediction.path)}: {'; '.join(messages)}", file=sys.stderr)


def _row(prediction: predict.Prediction) -> str:
    return f"{files.escape_cell(prediction.path)}\t{prediction.text}\t{prediction.confidence:.4f}"


def _json(prediction: predict.Prediction, **more: Any) -> str:
    reason = prediction.reason or prediction.withheld
    fields: dict[str, Any] = {
        "file": prediction.path,
        "text": prediction.text,
        "confidence": round(prediction.confidence, 6),
        "status": prediction.status,
        **more,
        **({"reason": reason} if reason else {}),
    }
    # Bytes of a name that are not UTF-8 are surrogates, which JSON escapes.
    return json.dumps(fields, ensure_ascii=False).encode("utf-8", "backslashreplace").decode("utf-8")


def _predict_with_beam(values: dict[str, Any], paths: list[str]) -> dict:
    options.check_given(input=values["input"], output=values["output"])
    others = ("server", "picture", "json", "follow_links", "min_confidence", "allowed", "pattern", "texts")
    if paths or any(values[name] for name in others):
        refused = ", ".join(f"--{name}" for name in others[:-1])
        raise InputError(f"--engine=beam: takes --input in place of images, and no {refused} or --{others[-1]}")
    beam.check_installed()
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.serving import predict_beam

    model = pathlib.Path(values["saved_model"])
    return predict_beam.run(model, values["input"], values["output"], values["beam_options"])


def _line_reader(values: dict[str, Any]) -> predict.ReadFunction:
    if values["server"]:
        from ocr.serving.client import Client

        return Client(values["server"], values["timeout_s"], model=values["model_name"], authority=values["tls_ca"])
    model = pathlib.Path(values["saved_model"])
    if model.suffix in edge.RUNTIMES:
        if values["allowed"] or values["pattern"] or values["texts"]:
            raise InputError(f"--saved_model={model}: takes no --allowed, --pattern or --texts, which need an export")
        return edge.load(model)
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.serving import saved_model

    return saved_model.load(model)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "", takes_arguments=True)


if __name__ == "__main__":
    run()
