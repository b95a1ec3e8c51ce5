"""The images of entries: files, lines of pages, and parts of databases."""

import functools

from PIL import Image

from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.sources import lmdb, pages, parquet
from ocr.images import cut, pillow_formats

_MAX_PAGE_BYTES = 200_000_000  # of the file of a page
_MAX_PAGE_PIXELS = 100_000_000


class Images:
    """Reads the images of entries; keeps the page, the database and the rows that were used last.

    Args:
      folder: of the images.
    """

    def __init__(self, folder: Folder):
        self._folder = folder
        self._page = functools.lru_cache(1)(self._read_page)
        self._database = functools.lru_cache(4)(functools.partial(lmdb.open_database, folder))
        self._rows = functools.lru_cache(1)(functools.partial(parquet.RowGroup, folder))

    def read(self, entry: Entry) -> bytes:
        """Returns an encoded image.

        Raises:
          Reject: it cannot be had.
        """
        if not entry.location:
            if not entry.name or "\0" in entry.name:
                raise Reject("bad_line", f"no file can be named {entry.name!r}")
            return self._folder.read(entry.name)
        kind, *where = entry.location
        if kind == lmdb.LMDB:
            path, sample = where
            return lmdb.image(self._database(path), sample)
        if kind == parquet.PARQUET:
            path, group, row, column = where
            return self._rows(path, group, column).image(row)
        assert kind == pages.CUT
        return self._cut(*where)

    def _cut(self, image: str, described: tuple[float, float], polygon: cut.Points, baseline: cut.Points) -> bytes:
        page = self._page(image)
        try:
            scaled = [cut.scale(points, described, page.size) for points in (polygon, baseline)]
            return cut.cut(page, *scaled)
        except cut.CutError as error:
            raise Reject("too_large" if error.is_too_large else "bad_polygon", str(error)) from error

    def _read_page(self, image: str) -> Image.Image:
        try:
            return pillow_formats.grey(self._folder.read(image, _MAX_PAGE_BYTES), _MAX_PAGE_PIXELS)
        except pillow_formats.TooLargeError as error:
            raise Reject("too_large", f"a page of {error}, and at most {_MAX_PAGE_PIXELS} are read") from error
        except pillow_formats.DamagedError as error:
            raise Reject("undecodable", f"the page's image: {error}") from error
