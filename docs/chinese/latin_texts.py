"""Makes texts in Western European languages for lines of Latin letters alone: see retrain.sh.

usage: latin_texts.py FOLDER

Reads manual pages, quotations and word lists of the Debian packages that retrain.sh names. Writes to FOLDER, for each language,
LANGUAGE.txt and LANGUAGE_held.txt, running text of which one paragraph in fifty is held out; words.txt, words of the word lists
in random order, some of them in capitals; and charset.txt, the characters.
"""

import gzip
import itertools
import pathlib
import random
import re
import string
import sys

HELD_OUT = 50  # one paragraph in so many
FORTUNES = {"en": "*", "de": "de/*", "es": "es/*", "it": "it/*", "pt": "brasil*"}  # in /usr/share/games/fortunes
MANUALS = {"en": "", "de": "de", "fr": "fr", "es": "es", "it": "it", "pt": "pt_BR", "nl": "nl", "da": "da"}  # in /usr/share/man
WORDS = ("american-english", "ngerman", "french", "spanish", "italian", "brazilian", "dutch")  # in /usr/share/dict
MOST_CHARACTERS = 3_000_000  # of a language
# Those of Western European languages in print: Latin-1, what Windows-1252 adds to it, and some marks.
ALPHABET = string.digits + string.ascii_letters + string.punctuation + " " + "".join(map(chr, range(0xA1, 0x100)))
ALPHABET = ALPHABET.replace("\xad", "") + "ŒœŠšŽžŸ‘’‚“”„‹›†‡‰–—…•€™−←→↑↓≤≥≠≈●■□▪✓★"


def manual(path: pathlib.Path) -> list[str]:
    """Returns the paragraphs of a manual page."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8", "ignore")
    text = re.sub(r"^\.\s*\\\".*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"^\.(B|I|BR|IR|RB|RI|BI|IB|SM|SB) (.*)$", r"\2", text, flags=re.MULTILINE)
    text = re.sub(r"^[.'].*$", "\n", text, flags=re.MULTILINE)
    text = re.sub(r"\\f(\[[A-Z]*\]|\([A-Z]{2}|[A-Z0-9])|\\[&:/,|^%c]|\\s[-+]?\d", "", text)
    for escape, character in ((r"\-", "-"), (r"\(aq", "'"), (r"\(lq", "“"), (r"\(rq", "”"), (r"\(bu", "•"), (r"\e", "\\")):
        text = text.replace(escape, character)
    return [part for part in re.split(r"\n\s*\n", text) if "\\" not in part and len(part) > 20]


def fortunes(path: pathlib.Path) -> list[str]:
    """Returns the quotations of a file."""
    return re.split(r"\n%+\n", path.read_bytes().decode("utf-8", "ignore"))


def paragraphs(language: str) -> list[str]:
    """Returns running text, each paragraph on a line."""
    found = []
    if language in FORTUNES:
        files = pathlib.Path("/usr/share/games/fortunes").glob(FORTUNES[language])
        found += [text for file in sorted(files) if file.is_file() and not file.suffix for text in fortunes(file)]
    for file in sorted(pathlib.Path("/usr/share/man", MANUALS[language]).glob("man[1-8]/*.gz")):
        if file.is_file() and not file.name.startswith("gcloud"):  # some are links; no package of Debian has those
            found += manual(file)
    lines = [re.sub(r"\s+", " ", text).strip() for text in found]
    return [*dict.fromkeys(line for line in lines if len(line) > 20 and sum(map(str.isalpha, line)) > len(line) / 2)]


def shuffled_words(draw: random.Random) -> list[str]:
    """Returns lines of eight words of any language, as they are, with capitals, and with numbers and marks between them."""
    lists = [pathlib.Path("/usr/share/dict", name).read_text("utf-8").split() for name in WORDS]
    cases = [str, str, str, str.capitalize, str.upper]
    marks = [", ", ". ", "-", " – ", "; ", ": ", " (", ") ", "/", " & ", " + ", " = ", "_", "@", " | ", " „", "“ ", " «", "» "]
    between = [*[" "] * 14, *marks]
    lines = []
    for _ in range(60_000):
        case, words = draw.choice(cases), draw.choice(lists)
        parts = [case(draw.choice(words)) if draw.random() < 0.85 else number(draw) for _ in range(8)]
        lines.append("".join(part + draw.choice(between) for part in parts).strip())
    return lines


def number(draw: random.Random) -> str:
    """Returns a number as people write them, in English and in other languages."""
    n = draw.randrange(10 ** draw.randint(1, 6))
    large, price, date = f"{n:,}", f"{n / 100:.2f}", f"20{n % 40:02}-{n % 12 + 1:02}-{n % 28 + 1:02}"
    forms = (
        f"{n}", large, large.replace(",", "."), price, price.replace(".", ","), f"{n % 31 + 1}.{n % 12 + 1}.", date,
        f"{n % 100} %", f"{n % 1000}%", f"${n:,}", f"{n},– €", f"£{price}", f"{n % 24:02}:{n % 60:02}", f"§ {n % 1000}",
        f"{1500 + n % 540}", f"+{n % 90 + 10} {n}", f"({n % 100})", f"[{n % 100}]", f"{n % 20}.{n % 9}", f"No. {n}",
        f"Nr. {n}", f"{n % 40} °C", f"{n % 500} km²", f"{n % 9 + 1}½", f"#{n}", f"v{n % 10}.{n % 30}",
    )  # fmt: skip
    return draw.choice(forms)


def main(folder: str) -> None:
    """Writes all files."""
    out, draw = pathlib.Path(folder), random.Random(0)
    out.mkdir(parents=True, exist_ok=True)
    for language in MANUALS:
        lines = paragraphs(language)
        draw.shuffle(lines)
        total = itertools.accumulate(map(len, lines))
        lines = [line for line, length in zip(lines, total, strict=True) if length <= MOST_CHARACTERS]
        train = [line for number, line in enumerate(lines) if number % HELD_OUT]
        (out / f"{language}.txt").write_text("".join(f"{line}\n" for line in train), "utf-8")
        (out / f"{language}_held.txt").write_text("".join(f"{line}\n" for line in lines[::HELD_OUT]), "utf-8")
        print(language, len(train), sum(map(len, train)))
    (out / "words.txt").write_text("".join(f"{line}\n" for line in shuffled_words(draw)), "utf-8")
    (out / "charset.txt").write_text("".join(f"{character}\n" for character in ALPHABET), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
