"""Pipelines of Apache Beam, with the checks that `--engine=beam` needs."""

import importlib.util
import logging
import shlex
from typing import TYPE_CHECKING

from tfrecords.errors import InputError

if TYPE_CHECKING:
    import apache_beam as beam

ENGINES = ("local", "beam")


def check_installed() -> None:
    """Checks that Apache Beam is installed, and raises the level of its log.

    Raises:
      InputError: it is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise InputError("--engine=beam: Apache Beam is not installed: pip install apache-beam")
    logging.getLogger("apache_beam").setLevel(logging.ERROR)  # below, it logs each optional client that is not installed


def pipeline(beam_options: str) -> "beam.Pipeline":
    """Returns an empty pipeline.

    Args:
      beam_options: options of Beam as on its command line, `--runner` among them.

    Raises:
      InputError: no runner is named, or Beam refuses the options.
    """
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    try:
        arguments = shlex.split(beam_options)
    except ValueError as error:
        raise InputError(f"--beam_options={beam_options}: {error}") from error
    if not any(argument.startswith("--runner") for argument in arguments):
        raise InputError("--beam_options: has to name a runner, as in --runner=FlinkRunner")
    try:
        return beam.Pipeline(options=PipelineOptions(arguments))
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--beam_options={beam_options}: {error}") from error
