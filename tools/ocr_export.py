"""Exports a trained recogniser as a SavedModel that maps image files to texts.

For example:

  ocr_export --workdir=run --export_dir=export
  ocr_export --workdir=run --export_dir=export --calibrate=records
  ocr_export --export_dir=export --serving_config=serving
  ocr_export --check=export
"""

import pathlib
from typing import Any

from absl import flags

from . import command

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", "", "Workdir of the training; its best weights are exported.", flag_values=FLAGS)
flags.DEFINE_string("export_dir", "", "Folder of versions, which servers watch.", flag_values=FLAGS)
flags.DEFINE_string("decoder", "greedy", "greedy, or beam: slower, and sometimes more accurate.", flag_values=FLAGS)
flags.DEFINE_integer("version", 0, "Version number; 0 for one more than the newest in --export_dir.", flag_values=FLAGS)
flags.DEFINE_string(
    "calibrate",
    "",
    "Folders of records that the training did not see, separated by commas, to calibrate confidences on: a confidence is then "
    "the probability that the line is correct.",
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
flags.DEFINE_string("check", "", "Export to check, instead of writing one.", flag_values=FLAGS)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Exports a training, writes a configuration for TensorFlow Serving, or checks an export."""
    command.import_tensorflow()
    from ocr import options
    from ocr.saving import check_export, export
    from ocr.serving import saved_model, tf_serving_config

    if values["check"]:
        folder = saved_model.newest_version(pathlib.Path(values["check"]))
        return {"export": str(folder), "checked": check_export.inspect(folder, saved_model.load(folder))}
    workdir, export_dir = values["workdir"], values["export_dir"]
    options.check_given(export_dir=export_dir)
    result = {}
    if not values["serving_config"] or workdir:
        options.check_given(workdir=workdir)
        result = export.export(workdir, export_dir, values["decoder"], values["version"], values["calibrate"])
    if values["serving_config"]:
        folder = pathlib.Path(values["serving_config"])
        result["serving_config"] = tf_serving_config.write(folder, pathlib.Path(export_dir), values["serving_base_path"])
    return result


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
