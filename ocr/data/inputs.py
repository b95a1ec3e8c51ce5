"""Opens what a conversion reads: a labels file, or another source that is first written to a file of entries."""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import BinaryIO

from ocr import charset as charsets
from ocr.charset import Charset
from ocr.data import entries, labels
from ocr.data.convert_config import ConvertConfig
from ocr.data.corrections import Corrections
from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.line_index import LabelsIndex
from ocr.data.sources import choose, lists
from ocr.data.split_by import EVAL, SplitBy
from tfrecords import files
from tfrecords.errors import InputError


@contextlib.contextmanager
def open_inputs(config: ConvertConfig) -> Iterator[tuple[dict[str, LabelsIndex], Charset]]:
    """Indexes the lines of each split, one or two, and loads the alphabet. Files of entries last as long as the block.

    Raises:
      InputError: an input cannot be used.
    """
    charset = charsets.charset_by_name(config.charset)
    if not pathlib.Path(config.images).is_dir():
        raise InputError(f"--images={config.images}: no such folder")
    folder = Folder(config.images, config.follow_links)
    source, names = _source(config, folder)
    index = _index_labels(config, charset) if source == choose.LABELS else None
    if index and not (config.split_by or config.corrections):
        yield {config.split: _checked(config, index)}, charset
        return
    if index:
        found = lists.lines(index, charset)
    elif source in choose.OF_FILES:
        found = choose.OF_FILES[source](_labels_file(config))
    else:
        found = choose.OF_FOLDERS[source](folder, names)
    title = f"{config.labels or config.images} (--source={source})"
    output = pathlib.Path(config.output)
    files.make_folder(output)
    # Beside the records, where there is room; what a killed run left there is removed.
    with files.temporary_directory(output / f".{config.name}-{config.split}.entries") as scratch:
        paths = _write(config, found, scratch, title)
        images = pathlib.Path(config.images)
        indexes = {split: entries.index(path, images, title, source) for split, path in paths.items()}
        yield {split: _checked(config, index) for split, index in indexes.items()}, charset


def characters(config: ConvertConfig) -> str:
    """Returns the characters of all texts, in the order of their code points, whether in the alphabet or not.

    Args:
      config: of the conversion, with `split_by`.

    Raises:
      InputError: an input cannot be used.
    """
    with open_inputs(config) as (indexes, _):
        lines = (line for index in indexes.values() for line in entries.read(index.path))
        return "".join(sorted(set().union(*(entries.parse(line.content).text for line in lines))))


def _source(config: ConvertConfig, folder: Folder) -> tuple[str, list[str]]:
    """Returns the source, and the names of all files in the folder of the images if it needs them."""
    if config.source != "auto":
        return config.source, folder.names() if config.source in choose.OF_FOLDERS else []
    if config.labels:
        return choose.of_file(pathlib.Path(config.labels)), []
    names = folder.names()
    return choose.of_folder(config.images, folder, names), names


def _labels_file(config: ConvertConfig) -> pathlib.Path:
    path = pathlib.Path(config.labels)
    if not path.is_file():
        raise InputError(f"{path}: {'not a regular file' if path.exists() else 'No such file or directory'}")
    return path


def _index_labels(config: ConvertConfig, charset: Charset) -> LabelsIndex:
    integers_are_ids = config.charset.startswith(charsets.PREFIX_OF_CHINESE_OCR)
    path, images = pathlib.Path(config.labels), pathlib.Path(config.images)
    return labels.index(path, config.label_format, images, charset, integers_are_ids)


def _checked(config: ConvertConfig, index: LabelsIndex) -> LabelsIndex:
    if config.num_shards > index.count:
        raise InputError(f"--num_shards={config.num_shards}: more than the {index.count} lines of {index.title}")
    return index


def _write(config: ConvertConfig, found: Iterator[Entry], scratch: pathlib.Path, title: str) -> dict[str, pathlib.Path]:
    """Writes entries to a file for each split; none of them is empty."""
    split_by = SplitBy(config.split_by) if config.split_by else None
    corrections = Corrections(config.corrections) if config.corrections else None
    paths = {split: scratch / split for split in ([config.split, EVAL] if split_by else [config.split])}
    counts = dict.fromkeys(paths, 0)
    try:
        with contextlib.ExitStack() as stack:
            opened: dict[str, BinaryIO] = {split: stack.enter_context(open(path, "wb")) for split, path in paths.items()}
            for entry in map(corrections.apply, found) if corrections else found:
                split = EVAL if split_by and split_by.is_eval(entry) else config.split
                opened[split].write(entries.line(entry))
                counts[split] += 1
    except OSError as error:
        raise InputError(f"{error.filename or title}: {error.strerror}") from error
    if not any(counts.values()):
        raise InputError(f"{title}: has no text lines")
    if corrections:
        corrections.report()
    if split_by:
        split_by.warn_of_unmatched(config.split_by)
    for split, count in counts.items():
        if not count:
            raise InputError(f"--split_by={config.split_by}: none of the {sum(counts.values())} lines is for the split {split}")
    return paths
