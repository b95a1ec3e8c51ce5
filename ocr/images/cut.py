"""Cuts lines of text from the image of a page, with Pillow."""

import io
import math

import numpy as np
from PIL import Image, ImageDraw

from ocr.images import header

Points = list[tuple[float, float]]  # x and y in pixels, y downwards

MARGIN = 1 / 16  # of a line's height, left around it on all sides
MAX_COORDINATE = 1e7  # of a point, in any unit
_MAX_ASPECT_ERROR = 0.02  # between the shapes of an image and of the page that is described
_ROUNDING = 1e-6  # pixels, of turned points
_MIN_SIDE = 4  # of a line with its margin, in pixels


class CutError(ValueError):
    """A line that cannot be cut; `is_too_large` says whether it is for its size, and the message why."""

    def __init__(self, message: str, is_too_large: bool = False):
        super().__init__(message)
        self.is_too_large = is_too_large


def scale(points: Points, described: tuple[float, float], size: tuple[int, int]) -> Points:
    """Scales points to the pixels of a page's image.

    Args:
      points: in the unit of the page's size.
      described: width and height of the page as its description has it; NaN if it lacks them, and points are pixels.
      size: width and height of the image in pixels.

    Raises:
      CutError: the image has another shape than the page.
    """
    if math.isnan(described[0]) or math.isnan(described[1]):
        return points
    if not all(1 <= side <= MAX_COORDINATE for side in described):
        raise CutError(f"a page of {described[0]:g}x{described[1]:g}")
    factors = size[0] / described[0], size[1] / described[1]
    # Sizes in pixels are exact, those in millimetres or inches are rounded.
    if abs(factors[0] / factors[1] - 1) > _MAX_ASPECT_ERROR:
        raise CutError(f"the image has {size[0]}x{size[1]} pixels, the page is {described[0]:g}x{described[1]:g}")
    return [(x * factors[0], y * factors[1]) for x, y in points]


def cut(page: Image.Image, polygon: Points, baseline: Points) -> bytes:
    """Cuts a line from a page, turned so that its baseline is level.

    What is outside the polygon, and more than the margin away from it, is painted with the median grey of the line's box,
    which is the paper around it.

    Args:
      page: in mode L.
      polygon: at least three points around the line.
      baseline: points on its baseline from one end to the other; empty if it is level.

    Returns:
      A grey PNG file.

    Raises:
      CutError: the polygon is empty, or more than half of its box is off the page.
    """
    left, top, right, bottom = _box(polygon)
    visible = max(min(right, page.width) - max(left, 0.0), 0.0) * max(min(bottom, page.height) - max(top, 0.0), 0.0)
    if min(right - left, bottom - top) < 1 or _area(polygon) < 1:
        raise CutError("the points around the line enclose nothing")
    if visible < (right - left) * (bottom - top) / 2:
        box = f"{left:g},{top:g} to {right:g},{bottom:g}"
        raise CutError(f"more than half of the line, {box}, is off its page of {page.width}x{page.height} pixels")
    cosine, sine = _direction(baseline, right - left)
    turned = [(x * cosine + y * sine, y * cosine - x * sine) for x, y in polygon]
    left, top, right, bottom = _box(turned)
    margin = max((bottom - top) * MARGIN, 1.0)
    is_box = _area(turned) > (1 - 1e-6) * (right - left) * (bottom - top)
    left, top = left - margin, top - margin
    if not sine:  # pixels stay as they are
        left, top = math.floor(left), math.floor(top)
    width, height = (math.ceil(side - _ROUNDING) for side in (right + margin - left, bottom + margin - top))
    if min(width, height) < _MIN_SIDE:
        raise CutError(f"a line of {width}x{height} pixels")
    if header.is_too_large(height, width):
        raise CutError(f"{width}x{height} pixels", is_too_large=True)
    # From pixels of the line to pixels of the page, the inverse turn.
    to_page = cosine, -sine, left * cosine - top * sine, sine, cosine, left * sine + top * cosine
    resample = Image.Resampling.BICUBIC if sine else Image.Resampling.NEAREST
    mask = Image.new("L", (width, height), 255 if is_box else 0)
    if not is_box:
        shifted = [(x - left, y - top) for x, y in turned]
        draw = ImageDraw.Draw(mask)
        draw.polygon(shifted, 255)
        draw.line([*shifted, *shifted[:2]], 255, round(2 * margin), "curve")
    on_page = Image.new("L", page.size, 255).transform((width, height), Image.Transform.AFFINE, to_page)
    line = page.transform((width, height), Image.Transform.AFFINE, to_page, resample)
    paper = int(np.median(np.asarray(line)[np.asarray(on_page) > 0]))
    inside = Image.fromarray(np.minimum(np.asarray(mask), np.asarray(on_page)))
    out = io.BytesIO()
    Image.composite(line, Image.new("L", line.size, paper), inside).save(out, "PNG")
    return out.getvalue()


def _box(points: Points) -> tuple[float, float, float, float]:
    """Returns left, top, right and bottom of points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _area(points: Points) -> float:
    """Returns the area of a polygon, by Gauss's formula."""
    following = [*points[1:], points[0]]
    return abs(sum(x * after_y - after_x * y for (x, y), (after_x, after_y) in zip(points, following, strict=True))) / 2


def _direction(baseline: Points, width: float) -> tuple[float, float]:
    """Returns the cosine and sine of a baseline's angle, by least squares; of none if it rises by less than a pixel.

    A baseline that runs from right to left has the angle of the same one from left to right; a steep one is taken as it runs.
    """
    if len(baseline) < 2:
        return 1.0, 0.0
    points = np.array(baseline) - np.mean(baseline, 0)
    # The longest axis of the points.
    _, lengths, axes = np.linalg.svd(points, full_matrices=False)
    x, y = axes[0]
    if lengths[0] < 1:
        return 1.0, 0.0
    runs_back = x * (points[-1][0] - points[0][0]) + y * (points[-1][1] - points[0][1]) < 0
    if runs_back if abs(y) > abs(x) else x < 0:
        x, y = -x, -y
    return (1.0, 0.0) if abs(y) * width < 1 else (float(x), float(y))
