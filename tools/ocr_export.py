"""Exports a trained recogniser as a SavedModel that maps image files to texts.

For example:

  ocr_export --workdir=run --export_dir=export
  ocr_export --workdir=run --export_dir=export --calibrate=records
  ocr_export --workdir=run --export_dir=export --calibrate=records --decoder=beam --lm=zh.lm
  ocr_export --export_dir=export --serving_config=serving
  ocr_export --check=export
  ocr_export --saved_model=export --format=onnx --export_dir=edge
  ocr_export --saved_model=pretrained --format=litert --weights=int8 --data=records --export_dir=phone
  ocr_export --saved_model=export --format=web --onnxruntime_web=node_modules/onnxruntime-web --export_dir=site

The formats onnx, litert and web take an export that there is already. They write a folder with a model that reads a line at a
time, its alphabet and a description, and check on up to 2,000 lines that it reads what the export reads: 99.9% of the lines
must have the same text; with int8 the CER may be 0.1 points worse. They read lines once, as they are shown, also those of an
export with --turned_lines or --reread, and greedily: an export with --decoder=beam is refused.
ocr_predict --saved_model=edge/model.onnx reads with it. With web the folder is a page for any static web server, which reads
images in the browser.
"""

import pathlib
from typing import Any

from absl import flags

from tfrecords.errors import InputError

from .cli import command, tensorflow_import

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", "", "Workdir of the training; its best weights are exported.", flag_values=FLAGS)
flags.DEFINE_string("export_dir", "", "Folder of versions, which servers watch.", flag_values=FLAGS)
flags.DEFINE_string("decoder", "greedy", "greedy, or beam: slower, and sometimes more accurate.", flag_values=FLAGS)
flags.DEFINE_string(
    "lm",
    "",
    "With --decoder=beam and --calibrate: language model of ocr_lm, for lines that are read with a low confidence. Its weight "
    "and the threshold are chosen on the lines of --calibrate.",
    flag_values=FLAGS,
)
flags.DEFINE_integer("version", 0, "Version number; 0 for one more than the newest in --export_dir.", flag_values=FLAGS)
flags.DEFINE_string(
    "calibrate",
    "",
    "Folders of records that the training did not see, separated by commas, to calibrate confidences on: a confidence is then "
    "the probability that the line is correct.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "turned_lines",
    False,
    "Read lines that are doubtful as they are turned, too: by 180 degrees, those of tall images by 90 both ways.",
    flag_values=FLAGS,
)
flags.DEFINE_bool(
    "reread",
    False,
    "Read lines that are doubtful as they are in other sizes, too: narrower, wider, larger and smaller.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "serving_config",
    "",
    "New folder for the configuration files of TensorFlow Serving; without --workdir nothing else is written.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "serving_base_path", "/models/ocr", "With --serving_config: path of --export_dir on that server.", flag_values=FLAGS
)
flags.DEFINE_string("format", "saved_model", "saved_model, onnx (for ONNX Runtime), litert or web.", flag_values=FLAGS)
flags.DEFINE_string("saved_model", "", "With --format: the export to convert, such as export or pretrained.", flag_values=FLAGS)
flags.DEFINE_string(
    "weights",
    "float32",
    "With --format: float32; float16: half the size, computed in float32; int8: a quarter, and faster.",
    flag_values=FLAGS,
)
flags.DEFINE_string(
    "data", "", "With --format: records to compare the models on, such as a,b@eval; needed for int8.", flag_values=FLAGS
)
flags.DEFINE_string(
    "onnxruntime_web", "", "With --format=web: that npm package, such as node_modules/onnxruntime-web.", flag_values=FLAGS
)
flags.DEFINE_string("check", "", "Export to check, instead of writing one.", flag_values=FLAGS)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Exports a training, writes a configuration for TensorFlow Serving, or checks an export."""
    tensorflow_import.import_tensorflow()
    from ocr import options
    from ocr.saving import check_export, edge, export
    from ocr.serving import saved_model, tf_serving_config

    if values["check"]:
        folder = saved_model.newest_version(pathlib.Path(values["check"]))
        return {"export": str(folder), "checked": check_export.inspect(folder, saved_model.load(folder))}
    workdir, export_dir = values["workdir"], values["export_dir"]
    options.check_choice(values, format=("saved_model", *edge.FORMATS), weights=edge.WEIGHTS)
    options.check_given(export_dir=export_dir)
    of_exports = ("decoder", "version", "calibrate", "lm", "turned_lines", "reread")
    of_formats = ("saved_model", "weights", "data", "onnxruntime_web")
    is_export = values["format"] == "saved_model"
    for name in of_formats if is_export else of_exports:
        if values[name] != FLAGS[name].default:
            taken = "taken only with --format" if is_export else f"not taken with --format={values['format']}"
            raise InputError(f"--{name}={values[name]}: {taken}")
    if values["format"] != "saved_model":
        if workdir:
            raise InputError(f"--workdir={workdir}: export it first, then convert the export with --saved_model")
        options.check_given(saved_model=values["saved_model"])
        source, folder = pathlib.Path(values["saved_model"]), pathlib.Path(export_dir)
        names = ("format", "weights", "data", "onnxruntime_web")
        return edge.convert(source, folder, *(values[name] for name in names))
    result = {}
    if not values["serving_config"] or workdir:
        options.check_given(workdir=workdir)
        result = export.export(workdir, export_dir, *(values[name] for name in of_exports))
    if values["serving_config"]:
        folder = pathlib.Path(values["serving_config"])
        result["serving_config"] = tf_serving_config.write(folder, pathlib.Path(export_dir), values["serving_base_path"])
    return result


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
