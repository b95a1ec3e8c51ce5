"""Trains a recogniser, or resumes from the checkpoint in the workdir.

For example:

  ocr_train --train_data=records --eval_data=records --workdir=run --steps=2000
"""

from typing import Any

from absl import flags

from ocr.config import TrainConfig

from .cli import command, command_flags, signals, tensorflow_import

FLAGS = flags.FlagValues()
command_flags.define_fields(FLAGS, TrainConfig)
tensorflow_import.define_memory_growth(FLAGS, default=False)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Trains."""
    config = TrainConfig(**command_flags.fields(values, TrainConfig))
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    from ocr.training import train

    with signals.stop_on_signal() as stop:
        return train.train(config, stop)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
