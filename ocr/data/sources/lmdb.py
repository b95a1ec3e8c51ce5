"""Databases of LMDB with the keys `num-samples`, `image-000000001` and `label-000000001`, counted from 1."""

import pathlib
import re
from collections.abc import Iterator

from ocr.data import entries, labels
from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.sources.lmdb_file import DamagedError, LmdbFile
from ocr.images import header
from tfrecords.errors import InputError

FILE = "data.mdb"
LMDB = "lmdb"  # the kind of location; what follows is the path of the file and the sample's number
_MIN_SAMPLE_BYTES = 48  # of a file, for each sample: two keys of 15 bytes with their nodes


def lmdb(folder: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each sample of all databases in a folder, numbered over all.

    Raises:
      InputError: a database cannot be read, or lacks `num-samples`.
    """
    number = 0
    for path in names:
        if pathlib.PurePath(path).name != FILE:
            continue
        try:
            database = open_database(folder, path)
            count = database.get(b"num-samples", 20)
        except (Reject, DamagedError) as error:
            raise InputError(f"{path}: {getattr(error, 'detail', error)}") from error
        if count is None or not re.fullmatch(rb"\s*[0-9]{1,18}\s*", count):
            raise InputError(f"{path}: has no number of samples at the key num-samples, but {count!r}")
        if int(count) * _MIN_SAMPLE_BYTES > database.size:
            raise InputError(f"{path}: says that it has {int(count)} samples, for which it is too small")
        prefix = path.removesuffix(FILE)
        for sample in range(1, int(count) + 1):
            number += 1
            name = f"{prefix}image-{sample:09d}"
            try:
                yield Entry(number, name, _label(database, sample), (LMDB, path, sample))
            except Reject as reject:
                yield entries.rejected(number, name, reject)


def open_database(folder: Folder, path: str) -> LmdbFile:
    """Opens a database inside a folder.

    Raises:
      Reject: it is not there, or outside the folder.
      DamagedError: it is not a database.
    """
    return LmdbFile(folder.open(path))


def _label(database: LmdbFile, sample: int) -> str:
    key = f"label-{sample:09d}"
    try:
        label = database.get(key.encode("ascii"), labels.MAX_LINE_BYTES)
        if label is None:
            raise Reject("bad_line", f"no {key} in the database")
        return label.decode("utf-8")
    except DamagedError as error:
        raise Reject("bad_line", f"{key}: the database is damaged: {error}") from error
    except UnicodeDecodeError as error:
        raise Reject("bad_line", f"{key}: not UTF-8 at byte {error.start}") from error


def image(database: LmdbFile, sample: int) -> bytes:
    """Returns the image file of a sample.

    Raises:
      Reject: `missing_file`, `undecodable` or `too_large`.
    """
    key = f"image-{sample:09d}"
    try:
        content = database.get(key.encode("ascii"), header.MAX_BYTES + 1)
    except DamagedError as error:
        raise Reject("undecodable", f"{key}: the database is damaged: {error}") from error
    if content is None:
        raise Reject("missing_file", f"no {key} in the database")
    if len(content) > header.MAX_BYTES:
        raise Reject("too_large", f"at most {header.MAX_BYTES} bytes are read")
    return content
