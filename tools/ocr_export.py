"""Writes a trained recogniser as a SavedModel that takes image files and gives their texts.

For example:

  ocr_export --workdir=run --export_dir=export
  ocr_export --workdir=run --export_dir=export --calibrate=records
  ocr_export --export_dir=export --serving_config=serving
  ocr_export --check=export
"""

import pathlib
from typing import Any

from absl import flags

from tools import command

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", "", "Of the training, whose best weights are taken.", flag_values=FLAGS)
flags.DEFINE_string("export_dir", "", "Folder of versions, which a server watches.", flag_values=FLAGS)
flags.DEFINE_string("decoder", "greedy", "greedy, or beam: slower, and at times better.", flag_values=FLAGS)
flags.DEFINE_integer("version", 0, "Number of this version; 0 for one more than the newest there.", flag_values=FLAGS)
flags.DEFINE_string(
    "calibrate", "", "Records that the training did not see, DIRs with commas in between: by them confidences are made to say "
    "how often a line is right.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string(
    "serving_config", "", "New folder for the files that TensorFlow Serving is told with how to serve; without --workdir it is "
    "all that is written.", flag_values=FLAGS,
)  # fmt: skip
flags.DEFINE_string("serving_base_path", "/models/ocr", "Of --export_dir, as that server sees it.", flag_values=FLAGS)
flags.DEFINE_string("check", "", "An export to check, in place of writing one.", flag_values=FLAGS)


def main(values: dict[str, Any], _: list[str]) -> dict:
    command.import_tensorflow()
    from ocr import options
    from ocr.saving import check_export, export
    from ocr.serving import saved_model, tf_serving_config

    if values["check"]:
        folder = saved_model.newest_version(pathlib.Path(values["check"]))
        return {"export": str(folder), "checked": check_export.inspect(folder)}
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
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
