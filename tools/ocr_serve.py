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

_HELPS = {
    "export_dir": "Folder of versions that ocr_export writes; pretrained: the model for Chinese.",
    "host": "Address to listen at; 0.0.0.0 for all.",
    "grpc_port": "Port of gRPC; 0 for any that is free.",
    "rest_port": "Port of REST and of the page; 0 for any that is free.",
    "max_batch": "Lines of several requests that are read together.",
    "max_waiting": "Lines that may wait; requests beyond are refused.",
    "max_lines": "Lines of a request.",
    "max_request_mb": "Size of a request in MiB.",
    "poll_s": "Seconds between two looks for a new version.",
    "tls_cert": "PEM file with the certificate chain, to be talked to encrypted.",
    "tls_key": "PEM file with its key.",
}
FLAGS = flags.FlagValues()
command.define_fields(FLAGS, ServeConfig, _HELPS)


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
