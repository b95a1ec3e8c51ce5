"""Writes a trained recogniser as a SavedModel that takes image files and gives their texts.

For example:

  ocr_export --workdir=run --export_dir=export
  ocr_export --workdir=run --export_dir=export --calibrate=records
"""

from typing import Any

from absl import flags

from tools import command

FLAGS = flags.FlagValues()
flags.DEFINE_string("workdir", None, "Of the training, whose best weights are taken.", required=True, flag_values=FLAGS)
flags.DEFINE_string("export_dir", None, "Folder of versions, which a server watches.", required=True, flag_values=FLAGS)
flags.DEFINE_string("decoder", "greedy", "greedy, or beam: slower, and at times better.", flag_values=FLAGS)
flags.DEFINE_integer("version", 0, "Number of this version; 0 for one more than the newest there.", flag_values=FLAGS)

flags.DEFINE_string(
    "calibrate", "", "Records, DIR or DIR@split, by which confidences are made to say how often a line is right; those the "
    "training did not see.", flag_values=FLAGS,
)  # fmt: skip


def main(values: dict[str, Any], _: list[str]) -> dict:
    command.import_tensorflow()
    from ocr import export

    return export.export(values["workdir"], values["export_dir"], values["decoder"], values["version"], values["calibrate"])


def run() -> None:
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
