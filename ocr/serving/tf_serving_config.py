"""Configuration files for TensorFlow Serving: which versions to serve, how to batch, and that metrics are exported."""

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

    The two newest versions are served, labelled `canary` (the newest) and `stable`; a single version is `stable`.

    Args:
      folder: New folder to write to.
      export_dir: Folder of versions.
      base_path: Path of that folder as the server sees it.

    Returns:
      The names of the files.

    Raises:
      InputError: There is no version, the folder exists, or `base_path` holds quotation marks or unprintable characters.
    """
    if not base_path.isprintable() or set(base_path) & {'"', "\\"}:
        raise InputError(
            f"--serving_base_path={base_path!r}: must not hold quotation marks, backslashes or unprintable characters"
        )
    versions = list(saved_model.versions(export_dir))[-2:]
    if not versions:
        raise InputError(f"--export_dir={export_dir}: no version in it")
    contents = {"models.config": _models(versions, base_path), "batching.config": _BATCHING, "monitoring.config": _MONITORING}
    with files.atomic_directory(folder) as staging:
        for name, content in contents.items():
            (staging / name).write_text(content, "utf-8")
    return list(contents)


def _models(versions: list[int], base_path: str) -> str:
    labels = dict(zip(("stable", "canary"), versions, strict=False))
    labelled = "\n".join(f'    version_labels {{ key: "{label}" value: {number} }}' for label, number in labels.items())
    return f"""\
# --model_config_file=models.config --model_config_file_poll_wait_seconds=30
# A label may be moved to the other served version: canary forward, or stable back.
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
