"""Adapts a trained model to new lines in one go: packs them, trains, exports, and measures before and after.

For example:

  ocr_adapt --lines=folder --export_dir=export
  ocr_adapt --lines=folder --labels=folder/labels.txt --init_from=old_export --export_dir=export --minutes=30

The model keeps what it knows, without the lines it was trained on, and learns the characters that are new to it.
The same command resumes an adaptation that was stopped.
"""

from typing import Any

from absl import flags

from ocr.training.adapt_config import AdaptConfig

from .cli import command, command_flags, signals, tensorflow_import

FLAGS = flags.FlagValues()
command_flags.define_fields(FLAGS, AdaptConfig)
tensorflow_import.define_memory_growth(FLAGS, default=False)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Adapts a model."""
    config = AdaptConfig(**command_flags.fields(values, AdaptConfig))
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.training import adapt

    return adapt.adapt(config, signals.stop_on_signal)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
