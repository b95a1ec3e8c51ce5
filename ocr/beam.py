"""An engine of many machines to work on: Apache Beam."""

import shlex

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from tfrecords.errors import InputError


def pipeline(beam_options: str) -> beam.Pipeline:
    """Returns a pipeline with nothing in it.

    Args:
      beam_options: Beam's own, as on its command line.

    Raises:
      InputError: no runner is named, or the options are none that Beam takes.
    """
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
