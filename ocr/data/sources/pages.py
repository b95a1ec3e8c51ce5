"""Pages with their lines in XML: PAGE (2013 to 2019) and ALTO (versions 2 to 4). A line is cut from its page's image."""

import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ocr.data import entries
from ocr.data.entries import Entry
from ocr.data.folder import Folder
from ocr.data.labels import Reject
from ocr.data.sources.beside import EXTENSIONS
from ocr.images.cut import MAX_COORDINATE, Points

CUT = "cut"  # the kind of location; what follows is the page's image, the polygon and the baseline
_LOG = logging.getLogger(__name__)


class TextLine(NamedTuple):
    """A line of a page; lengths are in the unit of the page's size.

    Attributes:
      id: of the line; may be empty.
      text: of the line; empty if it has none.
      polygon: points around it; fewer than three if they cannot be read.
      baseline: points on its baseline; empty if there is none.
    """

    id: str
    text: str
    polygon: Points
    baseline: Points


class Page(NamedTuple):
    """A page: the name of its image, which may be empty, its width and height in any unit, and its lines."""

    image: str
    width: float
    height: float
    lines: list[TextLine]


def page(folder: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each TextLine of the PAGE files in a folder; see `_entries`."""
    return _entries(folder, names, "PcGts", read_page)


def alto(folder: Folder, names: list[str]) -> Iterator[Entry]:
    """Yields an entry for each TextLine of the ALTO files in a folder; see `_entries`."""
    return _entries(folder, names, "alto", read_alto)


def _entries(folder: Folder, names: list[str], root_tag: str, read: Callable[[Element], Page]) -> Iterator[Entry]:
    """Yields entries named `file.xml#id`, which are numbered over all files; a file that cannot be read is one reject.

    All lines of a page are in one split. XML files of other kinds, such as METS, are left out.
    """
    present, number, others = set(names), 0, 0
    for name in names:
        if not name.lower().endswith(".xml"):
            continue
        try:
            root = parse(folder.read(name))
            if _tag(root) != root_tag:
                others += 1
                continue
            content = read(root)
        except Reject as reject:
            number += 1
            yield entries.rejected(number, name, reject, name)
            continue
        image, lacking = "", None
        try:
            image = _find_image(folder, present, name, content.image)
        except Reject as reject:
            lacking = reject
        for index, line in enumerate(content.lines, 1):
            number += 1
            own = f"{name}#{line.id or index}"
            size = content.width, content.height
            if lacking:
                yield entries.rejected(number, own, lacking, name)
            elif not line.text:
                yield Entry(number, own, reason="no_text", detail="the line has no text", group=name)
            elif len(line.polygon) < 3:
                yield Entry(number, own, reason="bad_polygon", detail="no three points around the line", group=name)
            else:
                yield Entry(number, own, line.text, (CUT, image, size, line.polygon, line.baseline), group=name)
    if others:
        _LOG.warning("%d XML files have no <%s>, and are left out", others, root_tag)


class _Builder(ElementTree.TreeBuilder):
    """Refuses document types: only they can declare entities or name files to be read."""

    def doctype(self, *_: object) -> None:
        """Is called for a document type."""
        raise ValueError("it has a document type (<!DOCTYPE), which is not read")


def parse(content: bytes) -> Element:
    """Returns the root of an XML document, of which nothing is expanded or loaded.

    Raises:
      Reject: it is damaged, or has a document type.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(content)
        return parser.close()
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: an unknown encoding
        raise Reject("bad_line", f"XML that cannot be read: {error}") from error


def root_tag(folder: Folder, name: str) -> str:
    """Returns the tag of a file's root, `PcGts` or `alto` for example; empty if it cannot be read."""
    try:
        return _tag(parse(folder.read(name)))
    except Reject:
        return ""


def read_page(root: Element) -> Page:
    """Reads a PAGE file, of any namespace.

    https://github.com/PRImA-Research-Lab/PAGE-XML/blob/master/pagecontent/schema/pagecontent.xsd

    Raises:
      Reject: it has no page.
    """
    (element,) = _only(root, "Page")
    lines = []
    for line in _all(root, "TextLine"):
        coordinates = next(iter(_children(line, "Coords")), None)
        baseline = next(iter(_children(line, "Baseline")), None)
        points = [_points(part.get("points", "")) if part is not None else [] for part in (coordinates, baseline)]
        lines.append(TextLine(line.get("id", ""), _page_text(line), *points))
    return Page(element.get("imageFilename", ""), _number(element, "imageWidth"), _number(element, "imageHeight"), lines)


def _page_text(line: Element) -> str:
    """Returns the text of a TextLine itself: the alternative with the lowest index, or the first."""
    alternatives = _children(line, "TextEquiv")
    indexed = [part for part in alternatives if re.fullmatch("[0-9]{1,9}", part.get("index", ""))]
    best = min(indexed, key=lambda part: int(part.get("index", "0")), default=next(iter(alternatives), None))
    texts = _children(best, "Unicode") if best is not None else []
    return (texts[0].text or "") if texts else ""


def read_alto(root: Element) -> Page:
    """Reads an ALTO file, of any namespace. Strings are separated by blanks, as its schema says.

    https://www.loc.gov/standards/alto/

    Raises:
      Reject: it has no page, or several.
    """
    (element,) = _only(root, "Page")
    names = [(part.text or "").strip() for part in _all(root, "fileName")]
    lines = []
    for line in _all(element, "TextLine"):
        strings = [part.get("CONTENT", "") for part in _children(line, "String")]
        text = " ".join(filter(None, strings)) + "".join(part.get("CONTENT", "") for part in _children(line, "HYP"))
        polygons = [polygon for shape in _children(line, "Shape") for polygon in _children(shape, "Polygon")]
        box = [_number(line, key) for key in ("HPOS", "VPOS", "WIDTH", "HEIGHT")]
        polygon = _points(polygons[0].get("POINTS", "")) if polygons else _corners(*box)
        # Up to version 4.0 a baseline is one number, its height.
        baseline = _points(line.get("BASELINE", ""))
        lines.append(TextLine(line.get("ID", ""), text, polygon, baseline if len(baseline) > 1 else []))
    return Page(names[0] if names else "", _number(element, "WIDTH"), _number(element, "HEIGHT"), lines)


def _corners(left: float, top: float, width: float, height: float) -> Points:
    """Returns the corners of a box; none if it is not a box."""
    if not (max(abs(left), abs(top)) <= MAX_COORDINATE and 0 < width <= MAX_COORDINATE and 0 < height <= MAX_COORDINATE):
        return []
    right, bottom = left + width, top + height
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


def _points(written: str) -> Points:
    """Returns the points of `x,y x,y` or `x y x y`; none if they cannot be read."""
    parts = re.split(r"[\s,]+", written.strip())
    try:
        numbers = [float(part) for part in parts] if len(parts) % 2 == 0 else []
    except ValueError:
        return []
    if not all(abs(number) <= MAX_COORDINATE for number in numbers):
        return []
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _number(element: Element, key: str) -> float:
    """Returns a number; NaN if it cannot be read."""
    try:
        return float(element.get(key, "nan"))
    except ValueError:
        return math.nan


def _tag(element: Element) -> str:
    """Returns the tag without its namespace, in which the versions differ."""
    return element.tag.rpartition("}")[2]


def _children(element: Element, tag: str) -> list[Element]:
    return [child for child in element if _tag(child) == tag]


def _all(element: Element, tag: str) -> list[Element]:
    return [child for child in element.iter() if _tag(child) == tag]


def _only(root: Element, tag: str) -> list[Element]:
    if len(found := _all(root, tag)) != 1:
        raise Reject("bad_line", f"has {len(found)} pages; one file must have one")
    return found


def _find_image(folder: Folder, present: set[str], name: str, image: str) -> str:
    """Returns the image of a page: where its XML says, or of that name beside the XML or one folder up.

    Raises:
      Reject: `outside_images` or `missing_file`.
    """
    inside = pathlib.PurePosixPath(name).parent
    base = pathlib.PurePosixPath(image.replace("\\", "/")).name
    stem = pathlib.PurePath(name).stem
    bases = [base] if base else [stem + extension for extension in EXTENSIONS]
    given = [os.path.normpath(inside / image)] if image else []
    beside = [os.path.normpath(inside / up / each) for up in (".", "..") for each in bases]
    for path in [*given, *beside]:
        if path in present:
            return path
    path = [*given, *beside][0]
    os.close(folder.open(path))  # says what is wrong with it, or finds it through a link
    return path
