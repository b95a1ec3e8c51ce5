"""The sources by name, and how to tell which one a folder is."""

import itertools
import logging
import pathlib
import re
from collections.abc import Callable, Iterator

from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.sources import beside, lists, lmdb, pages, parquet
from tfrecords.errors import InputError

LABELS = "labels"
# From the folder of the images and the names of the files in it.
OF_FOLDERS: dict[str, Callable[[Folder, list[str]], Iterator[Entry]]] = {
    "gt": beside.gt,
    "page": pages.page,
    "alto": pages.alto,
    "lmdb": lmdb.lmdb,
    "parquet": parquet.parquet,
    "names": beside.names,
}
# From the file that --labels names.
OF_FILES: dict[str, Callable[[pathlib.Path], Iterator[Entry]]] = {
    "paddle": lists.paddle,
    "json": lists.doctr,
    "csv": lists.table,
}
_XML_ROOTS = {"PcGts": "page", "alto": "alto"}
_MAX_XML = 20  # files that are looked into
_FIRST_LINE_BYTES = 2**16
_LOG = logging.getLogger(__name__)


def of_file(path: pathlib.Path) -> str:
    """Returns which source a labels file is: `labels` for all that is no other for certain.

    Raises:
      InputError: it cannot be read.
    """
    if not path.is_file():
        return LABELS  # which says what is wrong with it
    try:
        with open(path, "rb") as file:
            first = file.readline(_FIRST_LINE_BYTES).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    if re.match(rb'\s*\{\s*("|$)', first) and b"\t" not in first:
        return "json"
    if lists.is_list(first.partition(b"\t")[0]):
        return "paddle"
    if path.suffix.lower() in (".csv", ".tsv"):
        try:
            lists.columns(path, first.decode("utf-8", "replace"))
        except InputError:
            return LABELS
        return "csv"
    return LABELS


def of_folder(path: str, folder: Folder, names: list[str]) -> str:
    """Returns which source a folder is, and logs it.

    Args:
      path: of the folder, for messages.
      folder: the folder.
      names: of all files in it.

    Raises:
      InputError: it could be several, or is none.
    """
    xml = (name for name in names if name.lower().endswith(".xml"))
    roots = {pages.root_tag(folder, name) for name in itertools.islice(xml, _MAX_XML)}
    found = {
        "gt": any(name.endswith(beside.GT) for name in names),
        **{source: root in roots for root, source in _XML_ROOTS.items()},
        "lmdb": any(pathlib.PurePath(name).name == lmdb.FILE for name in names),
        "parquet": any(name.endswith(parquet.EXTENSION) for name in names),
    }
    sources = [source for source, is_there in found.items() if is_there]
    if len(sources) > 1:
        raise InputError(f"--images={path}: could be {' or '.join(sources)}: say which with --source")
    if not sources:
        images = [pathlib.PurePath(name).stem for name in names if name.lower().endswith(beside.EXTENSIONS)]
        if not images or not all(re.search("[^_]_[0-9]+$", stem) for stem in images):
            labels = next((name for name in sorted(names) if re.fullmatch(r"labels?\.(txt|tsv|csv|json)", name)), "")
            if labels:
                raise InputError(f"--labels: has to be given: perhaps --labels={pathlib.Path(path, labels)}")
            raise InputError(
                f"--labels: has to be given: --images={path} has no texts in it (NAME{beside.GT}, PAGE, ALTO, LMDB, Parquet "
                "or text_number.png)"
            )
        sources = ["names"]
    _LOG.info("--images=%s: its texts are read as --source=%s", path, sources[0])
    return sources[0]
