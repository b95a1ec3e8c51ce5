"""An engine of many machines to work on: Apache Beam."""

import importlib.util
import logging
import shlex
from typing import TYPE_CHECKING

from tfrecords.errors import InputError

if TYPE_CHECKING:
    import apache_beam as beam


def check_installed() -> None:
    """Makes sure that Apache Beam can be imported, and is quiet.

    Raises:
      InputError: it is not installed.
    """
    if importlib.util.find_spec("apache_beam") is None:
        raise InputError("--engine=beam: Apache Beam is not installed: pip install apache-beam")
    logging.getLogger().setLevel(logging.ERROR)  # it tells of every client that it does not find


def pipeline(beam_options: str) -> "beam.Pipeline":
    """Returns a pipeline with nothing in it.

    Args:
      beam_options: Beam's own, as on its command line.

    Raises:
      InputError: no runner is named, or the options are none that Beam takes.
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
