"""What TensorFlow Serving is to be told to serve an export: its models, how to batch, and that it is to be measured."""

import pathlib

from ocr.serving import saved_model, wire
from tfrecords import files
from tfrecords.errors import InputError

_BATCHING = """\
# --enable_batching --batching_parameters_file=batching.config
max_batch_size { value: 32 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 16 }
"""
_MONITORING = """\
# --monitoring_config_file=monitoring.config
prometheus_config { enable: true path: "/monitoring/prometheus/metrics" }
"""


def write(folder: pathlib.Path, export_dir: pathlib.Path, base_path: str) -> list[str]:
    """Writes `models.config`, `batching.config` and `monitoring.config`.

    The two newest versions are served: the newest as `canary`, the other as `stable`; where there is but one, it is `stable`.

    Args:
      folder: new one, to write to.
      export_dir: folder of versions.
      base_path: of that folder, as the server sees it.

    Returns:
      The names of the files.

    Raises:
      InputError: there is no version, the folder is there already, or `base_path` has quotation marks or the like.
    """
    if not base_path.isprintable() or set(base_path) & {'"', "\\"}:
        raise InputError(f"--serving_base_path={base_path!r}: has a character that stands in no path here")
    versions = saved_model.versions(export_dir)[-2:]
    if not versions:
        raise InputError(f"--export_dir={export_dir}: no version in it")
    written = {"models.config": _models(versions, base_path), "batching.config": _BATCHING, "monitoring.config": _MONITORING}
    with files.atomic_directory(folder) as staging:
        for name, content in written.items():
            (staging / name).write_text(content, "utf-8")
    return list(written)


def _models(versions: list[int], base_path: str) -> str:
    labels = dict(zip(("stable", "canary"), versions, strict=False))
    labelled = "\n".join(f'    version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    return f"""\
# --model_config_file=models.config --model_config_file_poll_wait_seconds=30
# A label may be moved to another of the versions that are served: canary forward, or stable back.
model_config_list {{
  config {{
    name: "{wire.MODEL}"
    base_path: "{base_path}"
    model_platform: "tensorflow"
    model_version_policy {{ specific {{ {" ".join(f"versions: {number}" for number in versions)} }} }}
{labelled}
  }}
}}
"""
