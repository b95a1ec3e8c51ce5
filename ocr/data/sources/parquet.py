"""Parquet files as Hugging Face's data sets have them: a column of images, as bytes or {bytes, path}, and one of texts."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.sources.lists import NAME_COLUMNS, TEXT_COLUMNS
from ocr.images import header
from tfrecords.errors import InputError

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

EXTENSION = ".parquet"
PARQUET = "parquet"  # the kind of location; what follows is the path of the file, the row group, the row and the column


def parquet(folder: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each row of all Parquet files in a folder, numbered over all, and named `file.parquet#row`.

    Raises:
      InputError: pyarrow is not installed, or a file cannot be read or lacks a column.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise InputError("--source=parquet: needs pyarrow: pip install 'line-ocr[parquet]'") from error
    number = 0
    for path in names:
        if not path.endswith(EXTENSION):
            continue
        try:
            with open_file(folder, path) as file:
                for entry in _rows(path, file):
                    number += 1
                    yield entry._replace(number=number)
        except Reject as reject:
            raise InputError(f"{path}: {reject.detail}") from reject
        except (pa.ArrowException, OSError, ValueError) as error:
            raise InputError(f"{path}: damaged Parquet ({str(error).splitlines()[0]})") from error


def _rows(path: str, file: "ParquetFile") -> Iterator[Entry]:
    """Yields an entry for each row of a file, numbered from 1."""
    image, text = _columns(path, file.schema_arrow)
    row = 0
    for group in range(file.num_row_groups):
        for inside, value in enumerate(file.read_row_group(group, [text]).column(text)):
            row += 1
            name, label = f"{path}#{row}", value.as_py()
            if label is None:
                yield Entry(row, name, reason="empty_label", detail="its text is null")
            else:
                yield Entry(row, name, label, (PARQUET, path, group, inside, image))


@contextlib.contextmanager
def open_file(folder: Folder, path: str) -> "Iterator[ParquetFile]":
    """Opens a file inside a folder, and closes it after the block.

    Raises:
      Reject: it is not there, or outside the folder.
      pyarrow.ArrowException: it is damaged.
    """
    from pyarrow.parquet import ParquetFile

    with os.fdopen(folder.open(path), "rb") as file:
        yield ParquetFile(file)


def _columns(path: str, schema: Any) -> tuple[str, str]:
    """Returns the names of the columns of images and of texts."""
    import pyarrow as pa

    def is_binary(kind: pa.DataType) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    def is_image(kind: pa.DataType) -> bool:
        parts = list(kind) if pa.types.is_struct(kind) else []
        return is_binary(kind) or any(part.name == "bytes" and is_binary(part.type) for part in parts)

    def is_text(kind: pa.DataType) -> bool:
        return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))

    chosen = []
    for known, fits, what in ((NAME_COLUMNS, is_image, "images"), (TEXT_COLUMNS, is_text, "texts")):
        names = [name for name in known if name in schema.names and fits(schema.field(name).type)]
        if not names:
            there = ", ".join(f"{field.name} ({field.type})" for field in schema)
            raise InputError(f"{path}: has no column of {what} named {', '.join(known)}, but {there[:200]}")
        chosen.append(names[0])
    return chosen[0], chosen[1]


class RowGroup:
    """The images of a row group, each as bytes or as a dictionary with `bytes` and `path`.

    Raises:
      Reject: the file is not there, outside the folder, or damaged.
    """

    def __init__(self, folder: Folder, path: str, group: int, column: str):
        import pyarrow as pa

        self._folder = folder
        try:
            with open_file(folder, path) as file:
                self._values = file.read_row_group(group, [column]).column(column)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise Reject("undecodable", f"damaged Parquet: {str(error).splitlines()[0]}") from error

    def image(self, row: int) -> bytes:
        """Returns the image file in a row, or the one that it names.

        Raises:
          Reject: `missing_file`, `outside_images` or `too_large`.
        """
        value = self._values[row].as_py()
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if content is None and path:
            return self._folder.read(path)
        if content is None:
            raise Reject("missing_file", "its image is null")
        if len(content) > header.MAX_BYTES:
            raise Reject("too_large", f"at most {header.MAX_BYTES} bytes are read")
        return content
