"""Serves an export as TensorFlow Serving does, over gRPC and REST, with a page to drop images on.

For example:

  ocr_serve --export_dir=export
  ocr_serve --export_dir=export --host=0.0.0.0 --tls_cert=cert.pem --tls_key=key.pem

It needs the extra [serve]. The newest version in the folder is served, and one that is added takes its place.
"""

from typing import Any

from absl import flags

from ocr.config import ServeConfig
from tfrecords.errors import InputError
from tools import command

FLAGS = flags.FlagValues()
command.define_fields(FLAGS, ServeConfig)


def main(values: dict[str, Any], _: list[str]) -> dict:
    config = ServeConfig(**command.fields(values, ServeConfig))
    command.import_tensorflow()
    try:
        from ocr.serving import server
    except ModuleNotFoundError as error:
        raise InputError(f"{error.name} is not installed: pip install 'line-ocr[serve]'") from error
    with command.stop_on_signal("answering what was taken, then leaving") as stopped:
        return server.serve(config, stopped)


def run() -> None:
    command.run(main, FLAGS, __doc__ or "")


if __name__ == "__main__":
    run()
