"""Compares the files of a split with its manifest, byte for byte; `ocr.data.verify` also checks what the records hold."""

import pathlib

from tfrecords import shards
from tfrecords.errors import IntegrityError
from tfrecords.manifest import Manifest
from tfrecords.shards import Shard


def misplaced_shards(folder: pathlib.Path, manifest: Manifest) -> list[str]:
    """Finds the faults of a split that show without reading it.

    Returns:
      A message for each shard that is missing, is not listed in the manifest, or has another size than the manifest says.
    """
    faults = []
    for shard in manifest.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.bytes:
            problem = "is missing" if size is None else f"has {size} bytes"
            faults.append(f"{path}: {problem}, its manifest says {shard.bytes} bytes")
    listed = {shard.file for shard in manifest.shards}
    paths = sorted(folder.glob(f"{manifest.name}-{manifest.split}.tfrecord-*"))
    return faults + [f"{path}: is not in the manifest {manifest.file}" for path in paths if path.name not in listed]


def shard_damage(path: pathlib.Path, shard: Shard) -> str:
    """Compares a shard, read from end to end, with what its manifest says.

    Args:
      path: of the file.
      shard: its entry in the manifest.

    Returns:
      A message that names the file and what differs; empty if nothing does.
    """
    try:
        actual = shards.describe(path, shard.file)
    except OSError as error:
        return f"{path}: {error.strerror}"
    except IntegrityError as error:
        return str(error)
    for field in ("bytes", "records", "sha256", "offsets", "checks"):
        value, expected = getattr(actual, field), getattr(shard, field)
        if value != expected:
            is_count = field in ("bytes", "records")
            difference = f"{value}, its manifest says {expected}" if is_count else "not what its manifest says"
            return f"{path}: damaged, its {field} is {difference}"
    return ""
