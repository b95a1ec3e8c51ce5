"""Styles of synthetic lines, from clean to hard: the values of `--degrade`."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class World:
    """What happens to a line between the printer, or the screen, and a crop of a picture of it.

    Lengths are relative to the height of the image. A pair is the range of a uniform distribution, a triple that of a
    triangular one with its mode in the middle. Other numbers but `bow` are probabilities for each line.

    Attributes:
      margins: distance of the ink from each edge, independently; where it is negative, the edge cuts the ink.
      bow: largest height of the arc that the line is bent to.
      contrast: difference between text and background in grey levels.
      italic: that letters lean.
      worn: that ink is missing in places.
      dotted: that letters are made of dots, as on LED signs, or of square pixels.
      dressed: that letters have an outline, a shadow or a gradient, or are hollow.
      textured: that the background is paper, cloth, stone, a pattern or a picture.
      lit: that the light is uneven.
      neighbours: that there are remains of the lines above or below.
      column: that a column of characters was turned counterclockwise to a line.
      marked: that there are rules, boxes, stamps, strokes or a watermark over the text.
      resolution: the height of the crop in the original picture in pixels, uniform on a logarithmic scale.
      defocus: radius of the disc that the lens makes of a point, relative to the height of the ink.
      shaken: that the camera moved.
      sharpened: that edges have halos.
      noise: standard deviation of the sensor's noise, relative to the contrast.
      compressed: that the original picture was a JPEG file, half of them twice.
      coloured: that text and background of such a file differ in colour, and not in how bright they are alone.
    """

    margins: tuple[float, float, float]
    bow: float
    contrast: tuple[float, float, float]
    italic: float
    worn: float
    dotted: float
    dressed: float
    textured: float
    lit: float
    neighbours: float
    column: float
    marked: float
    resolution: tuple[float, float]
    defocus: tuple[float, float]
    shaken: float
    sharpened: float
    noise: tuple[float, float]
    compressed: float
    coloured: float


@dataclasses.dataclass(frozen=True)
class Style:
    """The distribution of a line's appearance.

    A pair is the range of a uniform distribution. "Probability" is that of an effect for each line.

    Attributes:
      size: font size (em), relative to the height of the image; in a world, to the height between the margins.
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
      world: what happens to the line after it was drawn, instead of `margin` and of the effects from `outlined` to `noise` but
        `inverted`; None for nothing else.
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
    world: World | None = None

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
    "page": Style(
        size=(1.0, 1.2), stretch=1.1, tracking=(0.0, 0.2), slope=0.3, lean=0.25, weight=0.2, underlined=0.03, inverted=0.14,
        jpeg=(94, 100), world=World(
            margins=(-0.02, 0.14, 0.4), bow=0.0, contrast=(50, 255, 255), italic=0.06, worn=0.03, dotted=0.01, dressed=0.05,
            textured=0.06, lit=0.05, neighbours=0.15, column=0.01, marked=0.08, resolution=(14, 60), defocus=(0.0, 0.01),
            shaken=0.0, sharpened=0.1, noise=(0.0, 0.005), compressed=0.25, coloured=0.2,
        ),
    ),
    "photo": Style(
        size=(1.0, 1.25), stretch=1.4, tracking=(-0.04, 0.3), wobble=0.01, slope=1.5, lean=0.3, depth=0.1, weight=0.4,
        underlined=0.03, inverted=0.3, jpeg=(75, 98), world=World(
            margins=(-0.06, 0.14, 0.4), bow=0.06, contrast=(50, 220, 255), italic=0.15, worn=0.08, dotted=0.02, dressed=0.2,
            textured=0.25, lit=0.3, neighbours=0.3, column=0.08, marked=0.12, resolution=(14, 70), defocus=(0.0, 0.035),
            shaken=0.08, sharpened=0.2, noise=(0.0, 0.025), compressed=0.8, coloured=0.5,
        ),
    ),
    "sign": Style(
        size=(1.0, 1.3), stretch=1.9, tracking=(-0.08, 0.9), wobble=0.02, slope=4.0, lean=0.4, depth=0.2, weight=0.5,
        underlined=0.02, inverted=0.4, jpeg=(70, 98), world=World(
            margins=(-0.1, 0.14, 0.4), bow=0.1, contrast=(50, 220, 255), italic=0.25, worn=0.12, dotted=0.03, dressed=0.5,
            textured=0.35, lit=0.35, neighbours=0.4, column=0.16, marked=0.15, resolution=(14, 70), defocus=(0.0, 0.04),
            shaken=0.08, sharpened=0.2, noise=(0.0, 0.025), compressed=0.8, coloured=0.6,
        ),
    ),
}  # fmt: skip
