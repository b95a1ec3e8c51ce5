"""Serves an export over the APIs of TensorFlow Serving, gRPC and REST, with a web page to drop images on.

For example:

  ocr_serve --export_dir=export
  ocr_serve --export_dir=export --host=0.0.0.0 --tls_cert=cert.pem --tls_key=key.pem

It needs the extra [serve]. It serves the newest version in the folder, and switches to a newer one when it appears.
"""

from typing import Any

from absl import flags

from ocr.serving.serve_config import ServeConfig
from tfrecords.errors import InputError

from .cli import command, command_flags, signals, tensorflow_import

FLAGS = flags.FlagValues()
command_flags.define_fields(FLAGS, ServeConfig)
tensorflow_import.define_memory_growth(FLAGS, default=True)


def main(values: dict[str, Any], _: list[str]) -> dict:
    """Serves until a signal is received."""
    config = ServeConfig(**command_flags.fields(values, ServeConfig))
    tensorflow_import.import_tensorflow(values["gpu_memory_growth"])
    try:
        from ocr.serving import server
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'line-ocr[serve]'") from error
    with signals.stop_on_signal("finishing accepted requests, then exiting") as stopped:
        return server.serve(config, stopped)


def run() -> None:
    """Runs the command line."""
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
