"""Makes the texts and the alphabet that the Chinese model is trained with: see retrain.sh.

usage: make_texts.py CORPUS WORDS FOLDER [LABELS...]

CORPUS is running text, WORDS has one word a line, LABELS are labels files of real lines. Writes to FOLDER:

  train.txt, held.txt  the running text; one line in fifty is held out
  words.txt            the words, likewise
  hanzi.txt            random hanzi of the alphabet, so that each is seen often enough
  latin.txt            sequences of Latin words, which are too rare in the running text
  mixed.txt            running text with Latin words, numbers, units, addresses and the like in it, with and without spaces
  traditional.txt      running text in traditional characters
  charset.txt          the alphabet: gb2312, level 1 of Big5, the characters of the texts, and those common in real lines
"""

import collections
import pathlib
import random
import re
import sys

import opencc

from ocr import charset

HELD_OUT = 50  # one line in so many
MIN_SEEN = 3  # how often a character has to be in the real lines
SYMBOLS = "•·‧∙▪◦●○■□◆✓✔✕✖×÷™®©°²³¹⁰₁₂₃½¼№①②③④⑤⑥⑦⑧⑨⑩⊕⊗←→↑↓⇒▶►▼▲★☆♥€£¥–—―−‐‑…⋯“”‘’«»‹›≤≥≠≈±∞µΩ√∑∂∆"
BIG5_LEVEL_1 = range(0xA440, 0xC67F)
HANZI = re.compile("[\u3007\u3400-\u9fff]")


def big5_level_1() -> set[str]:
    """Returns the 5,401 common characters of Big5."""
    codes = (code.to_bytes(2) for code in BIG5_LEVEL_1)
    return {text for text in (code.decode("big5", "ignore") for code in codes) if HANZI.fullmatch(text)}


def alphabet(texts: list[str], labels: list[str]) -> charset.Charset:
    """Returns the alphabet for training texts and labels of real lines."""
    known = charset.charset_by_name("gb2312").characters
    counts = collections.Counter("".join(labels))
    seen = {*"".join(texts), *big5_level_1(), *SYMBOLS, *(c for c, count in counts.items() if count >= MIN_SEEN)}
    return charset.Charset(known + "".join(sorted(c for c in seen - set(known) if c.isprintable() and len(c.encode()) < 4)))


def latin_words(corpus: list[str]) -> tuple[list[str], list[float]]:
    """Returns the Latin words of a text, and the root of how often each occurs."""
    counts = collections.Counter(re.findall("[A-Za-z][A-Za-z'-]*[A-Za-z]", "\n".join(corpus)))
    return [*counts], [count**0.5 for count in counts.values()]


def latin_line(draw: random.Random, words: list[str]) -> str:
    """Returns a line of Latin words in various cases, with a number in it."""
    cases = [str.lower, str.capitalize, str.upper, *[str] * 7]
    between = [*[" "] * 8, ", ", ". ", "-", "_", "/", ".", "=", ": ", "; ", "(", ") "]
    parts = [draw.choice(cases)(word) + draw.choice(between) for word in words]
    parts[draw.randrange(len(parts))] = f"{number(draw)} "
    return "".join(parts).strip()


def number(draw: random.Random) -> str:
    """Returns a number as people write them."""
    digits = draw.randrange(10 ** draw.randint(1, 6))
    return draw.choice([f"{digits}", f"{digits}", f"{digits:,}", f"{digits / 100:.2f}", f"{digits / 10:.1f}", f"{digits:06d}"])


def foreign(draw: random.Random, word: str) -> str:
    """Returns what stands in Chinese text between hanzi: a word, a number with a unit, a date, a price, an address."""
    n = draw.randrange
    word = draw.choice([str.lower, str.capitalize, str.upper, str])(word)
    units = ["%", "℃", "°C", "km", "kg", "mm", "cm", "MB", "GB", "Hz", "px", "ml", "m²", "元", "年", "个", "次", "小时", "km/h"]
    return draw.choice(
        [
            word,
            word,
            word,
            number(draw),
            number(draw),
            f"{number(draw)}{draw.choice(['', ' '])}{draw.choice(units)}",
            f"{word}{n(10)}",
            f"v{n(10)}.{n(20)}.{n(10)}",
            f"20{n(40):02d}-{n(1, 13):02d}-{n(1, 29):02d}",
            f"20{n(40):02d}年{n(1, 13)}月{n(1, 29)}日",
            f"20{n(40):02d}/{n(1, 13)}/{n(1, 29)}",
            f"{n(24):02d}:{n(60):02d}",
            f"¥{n(1000)}.{n(100):02d}",
            f"${number(draw)}",
            f"1{n(3, 10)}{n(10**9):09d}",
            f"0{n(10, 999)}-{n(10**7, 10**8)}",
            f"{word.lower()}@{draw.choice(['qq', '163', 'gmail', 'example'])}.com",
            f"www.{word.lower()}.{draw.choice(['com', 'cn', 'org', 'com.cn', 'net'])}",
            f"https://{word.lower()}.{draw.choice(['com', 'io', 'org'])}/{draw.choice(['', 'docs', 'a/b', 'index.html'])}",
            f"({word})",
            f"（{word}）",
            f"“{word}”",
            f"{word}_{draw.choice(['id', 'name', 'size', 'list'])}",
            f"{word}/{word.upper()}",
            f"{n(256)}.{n(256)}.{n(256)}.{n(256)}",
            f"0x{n(2**16):04X}",
            f"[{n(1, 100)}]",
            f"{n(1, 20)}.{n(1, 20)}",
            f"A{n(10)}-{n(100)}",
        ]
    )


def mixed_line(draw: random.Random, text: str, words: list[str]) -> str:
    """Puts foreign parts into running text, in one line all with spaces around them or all without."""
    space = draw.choice(["", " "])
    parts, at = [], 0
    for word in words:
        step = draw.randint(1, 8)
        parts.append(text[at : at + step].strip())
        parts.append(foreign(draw, word))
        at += step
        if at >= len(text):
            break
    return space.join(part for part in parts if part).replace(f"{space}，", "，").replace(f"{space}。", "。").strip()


def main(corpus_file: str, words_file: str, folder: str, *label_files: str) -> None:
    """Writes all files."""
    out, draw = pathlib.Path(folder), random.Random(0)
    corpus = pathlib.Path(corpus_file).read_text("utf-8").splitlines()
    words = pathlib.Path(words_file).read_text("utf-8").splitlines()
    labels = [row.split("\t", 1)[1] for name in label_files for row in pathlib.Path(name).read_text("utf-8").splitlines()]
    train = [line for number, line in enumerate(corpus, 1) if number % HELD_OUT]
    to_traditional = opencc.OpenCC("s2t").convert
    traditional = [to_traditional(line) for line in draw.sample(train, len(train) // 4)]
    characters = alphabet([*train, *words, *traditional], labels)
    latin, weights = latin_words(train)
    hanzi = [character for character in characters.characters if HANZI.fullmatch(character)]

    def some(count: int) -> list[str]:
        return draw.choices(latin, weights, k=count)

    files = {
        "train.txt": train,
        "held.txt": [line for number, line in enumerate(corpus, 1) if number % HELD_OUT == 0],
        "words.txt": [word for number, word in enumerate(words, 1) if number % HELD_OUT],
        "hanzi.txt": ["".join(draw.choices(hanzi, k=30)) for _ in range(100_000)],
        "latin.txt": [latin_line(draw, some(8)) for _ in range(60_000)],
        "mixed.txt": [mixed_line(draw, line, some(6)) for line in draw.sample(train, min(100_000, len(train)))],
        "traditional.txt": traditional,
    }
    for name, lines in files.items():
        (out / name).write_text("".join(f"{line}\n" for line in lines), "utf-8")
    (out / "charset.txt").write_text(characters.file_text(), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
