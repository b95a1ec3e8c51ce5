"""Joins web fonts, which are split by character, into one font file for each style: see fetch_fonts.sh.

usage: merge_fonts.py PACKAGES OUTPUT

PACKAGES is a folder of unpacked npm packages. Each style in them becomes OUTPUT/hanzi/NAME.ttf if it has thousands of
characters, otherwise OUTPUT/latin/NAME.ttf. It keeps outlines, widths and characters, nothing else.
"""

import collections
import multiprocessing
import pathlib
import re
import sys

from fontTools.fontBuilder import FontBuilder
from fontTools.pens.cu2quPen import Cu2QuPen
from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.ttLib import TTFont

HANZI = 3000  # characters from which on a font is one of hanzi
WEIGHTS = ("400", "700", "900")
# Fontsource's names end in a subset, a weight and a slope; in the other packages each folder is a style.
_FONTSOURCE = re.compile(r"-(\d00)-(normal|italic)\.woff2$")


def styles(packages: pathlib.Path) -> dict[str, list[pathlib.Path]]:
    """Returns the files of each style by name."""
    parts = collections.defaultdict(list)
    for path in sorted(packages.rglob("*.woff2")):
        named = _FONTSOURCE.search(path.name)
        if not named:
            parts[path.parent.name.replace(" ", "")].append(path)
        elif named[1] in WEIGHTS and named[2] == "normal":
            parts[f"{path.relative_to(packages).parts[0]}-{named[1]}"].append(path)
    return parts


def merge(name: str, parts: list[pathlib.Path]) -> FontBuilder:
    """Returns a font with the characters of all parts of a style; of a character that is in several, the first one."""
    first = TTFont(parts[0])
    em, ascent, descent = first["head"].unitsPerEm, first["hhea"].ascent, first["hhea"].descent
    glyphs, widths, characters = {".notdef": TTGlyphPen(None).glyph()}, {".notdef": em // 2}, {}
    for part in parts:
        font = TTFont(part, lazy=True)
        if font["head"].unitsPerEm != em:
            continue
        drawn, metrics = font.getGlyphSet(), font["hmtx"]
        for code, glyph in font.getBestCmap().items():
            if code not in characters:
                outline = DecomposingRecordingPen(drawn)
                drawn[glyph].draw(outline)
                pen = TTGlyphPen(None)
                outline.replay(Cu2QuPen(pen, em / 1000, reverse_direction="CFF " in font))
                characters[code] = own = f"u{code:04X}"
                glyphs[own], widths[own] = pen.glyph(), metrics[glyph][0]
    builder = FontBuilder(em, isTTF=True)
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(characters)
    builder.setupGlyf(glyphs)
    outlines = builder.font["glyf"]
    builder.setupHorizontalMetrics({own: (width, getattr(outlines[own], "xMin", 0)) for own, width in widths.items()})
    builder.setupHorizontalHeader(ascent=ascent, descent=descent)
    builder.setupNameTable({"familyName": name, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=ascent, sTypoDescender=descent, usWinAscent=ascent, usWinDescent=-descent)
    builder.setupPost(keepGlyphNames=False)
    return builder


def _merge(job: tuple[str, list[pathlib.Path], pathlib.Path]) -> str:
    name, parts, output = job
    builder = merge(name, parts)
    count = len(builder.font.getBestCmap())
    folder = output / ("hanzi" if count >= HANZI else "latin")
    folder.mkdir(exist_ok=True)
    builder.save(str(folder / f"{name}.ttf"))
    return f"{name}: {count} characters"


def main(packages: str, output: str) -> None:
    """Merges all styles."""
    jobs = [(name, parts, pathlib.Path(output)) for name, parts in styles(pathlib.Path(packages)).items()]
    with multiprocessing.Pool() as pool:
        for line in pool.imap_unordered(_merge, jobs, chunksize=1):
            print(line, flush=True)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
