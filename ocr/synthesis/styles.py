"""Styles of synthetic lines, from clean to hard: the values of `--degrade`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Style:
    """The distribution of a line's appearance.

    A pair is the range of a uniform distribution. "Probability" is that of an effect for each line.

    Attributes:
      size: font size (em), relative to the height of the image.
      margin: distance of the ink from the edge, relative to the height; if negative, the edge cuts the ink.
      stretch: largest factor by which letters are widened or narrowed.
      tracking: additional space between letters, in em.
      wobble: largest vertical offset of a letter from the baseline, in em.
      slope: largest slope of the line, in degrees.
      lean: largest shear, in pixels to the side for each pixel upwards.
      depth: strength of the perspective: how much larger letters are at an end or edge than in the middle, at most.
      weight: probability that strokes are made thinner or bolder.
      underlined: probability of an underline as close to the letters as word processors draw it.
      outlined: probability of an outline of another grey level, or a shadow.
      rules: probability of rules, of tables or below the line, or of strokes from the lines above and below.
      paper: grey level of the background.
      ink: grey level of the text.
      inverted: probability that text and background are swapped.
      flat: probability of low contrast.
      uneven: probability of a gradient and a texture on the background.
      blur: radius of a Gaussian blur in pixels.
      shaken: probability of motion blur or of a loss of resolution.
      noise: standard deviation of Gaussian noise in grey levels; less where the contrast is low.
      jpeg: range of the JPEG quality, or None for PNG files with letters exactly as the font renders them.
    """

    size: tuple[float, float] = (0.6, 1.0)
    margin: tuple[float, float] = (1 / 16, 1 / 16)
    stretch: float = 1.0
    tracking: tuple[float, float] = (0.0, 0.0)
    wobble: float = 0.0
    slope: float = 0.0
    lean: float = 0.0
    depth: float = 0.0
    weight: float = 0.0
    underlined: float = 0.0
    outlined: float = 0.0
    rules: float = 0.0
    paper: tuple[int, int] = (215, 255)
    ink: tuple[int, int] = (0, 80)
    inverted: float = 0.0
    flat: float = 0.0
    uneven: float = 0.0
    blur: tuple[float, float] = (0.0, 0.0)
    shaken: float = 0.0
    noise: tuple[float, float] = (0.0, 0.0)
    jpeg: tuple[int, int] | None = None

    @property
    def crisp(self) -> bool:
        """Whether letters are left exactly as the font renders them."""
        return self.jpeg is None


STYLES = {
    "clean": Style(),
    "screen": Style(
        size=(0.55, 1.1), margin=(0.0, 1 / 5), tracking=(0.0, 0.15), underlined=0.12, outlined=0.02, paper=(170, 255),
        ink=(0, 130), inverted=0.4, flat=0.2,
    ),
    "scan": Style(
        size=(0.55, 1.05), margin=(0.0, 1 / 8), stretch=1.1, tracking=(-0.02, 0.12), slope=1.0, lean=0.05, weight=0.1,
        underlined=0.08, rules=0.05, paper=(190, 255), ink=(0, 100), inverted=0.25, blur=(0.0, 0.8), noise=(0.0, 10.0),
        jpeg=(40, 95),
    ),
    "hard": Style(
        size=(0.5, 1.1), margin=(-1 / 24, 1 / 8), stretch=1.3, tracking=(-0.06, 0.3), wobble=0.04, slope=2.5, lean=0.25,
        depth=0.12, weight=0.25, underlined=0.08, outlined=0.08, rules=0.3, paper=(140, 255), ink=(0, 110), inverted=0.35,
        flat=0.3, uneven=0.5, blur=(0.0, 1.0), shaken=0.25, noise=(0.0, 20.0), jpeg=(20, 90),
    ),
}  # fmt: skip
