"""Makes the texts and the alphabet that the Chinese model is trained with: see retrain.sh.

usage: make_texts.py CORPUS WORDS FOLDER [LABELS...]

CORPUS is running text, WORDS has one word a line, LABELS are labels files of real lines. Writes to FOLDER:

  train.txt, held.txt  the running text; one line in fifty is held out
  words.txt            the words, likewise
  hanzi.txt            random hanzi of the alphabet, so that each is seen often enough
  latin.txt            sequences of Latin words, which are too rare in the running text
  mixed.txt            running text with Latin words, numbers, units, addresses, brackets and the like in it, forms, lists
  traditional.txt      running text in traditional characters
  charset.txt          the alphabet: gb2312, level 1 of Big5, the characters of the texts, and those common in real lines
"""

import collections
import pathlib
import random
import re
import sys

import opencc
from latin_texts import ALPHABET

from ocr import charset

HELD_OUT = 50  # one line in so many
MIN_SEEN = 3  # how often a character has to be in the real lines
SYMBOLS = "•·‧∙▪◦●○■□◆✓✔✕✖×÷™®©°²³¹⁰₁₂₃½¼№①②③④⑤⑥⑦⑧⑨⑩⊕⊗←→↑↓⇒▶►▼▲★☆♥€£¥–—―−‐‑…⋯“”‘’«»‹›≤≥≠≈±∞µΩ√∑∂∆"
# Frequent words of English, most frequent first: running Chinese text has few of them.
COMMON = (
    "the of and to in is for that on with as are by be this it or you from at an not we can have has your will if which all "
    "one more when was but they their our its use new time no how what may about other out up so do also only any some than "
    "then into two most where each first them these there been over such should make between through after before please "
    "data page line file name text set get open close start end day year work home help free high low good best I he she"
)
LABELS = (
    "电话 传真 手机 地址 邮编 邮箱 网址 时间 日期 价格 单价 总计 合计 编号 型号 版本 规格 重量 尺寸 姓名 年龄 学号 备注 数量 "
    "温度 速度 说明 作者 来源 状态 订单号 总分 页码 语言 大小 进度 Tel Fax Email E-mail QQ 微信 IP URL ID No Version Date"
)
PAIRS = "() （） [] 【】 〔〕 《》 〈〉 「」 『』 {} <> “” ‘’ \"\" ''"
DASHES = ["——", "—", "–", "-", " - ", "～", "~", "…", "……", "...", "·", " · ", "/", "|", "：", ":", "、"]
FULL_WIDTH = str.maketrans({code: code + 0xFEE0 for code in b"0123456789.,:%"})
# Where a foreign part may stand in running text: after a particle, a preposition, a verb or a mark.
SEAM = re.compile("[的是在和为有到用了对与或从将把：，、（“]")
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
    seen = {*"".join(texts), *big5_level_1(), *SYMBOLS, *ALPHABET, *(c for c, count in counts.items() if count >= MIN_SEEN)}
    return charset.Charset(known + "".join(sorted(c for c in seen - set(known) if c.isprintable() and len(c.encode()) < 4)))


def latin_words(corpus: list[str]) -> tuple[list[str], list[float]]:
    """Returns the Latin words of a text, and the root of how often each occurs."""
    counts = collections.Counter(re.findall("[A-Za-z][A-Za-z'-]*[A-Za-z]", "\n".join(corpus)))
    return [*counts], [count**0.5 for count in counts.values()]


def latin_line(draw: random.Random, words: list[str]) -> str:
    """Returns a line of Latin words: a sentence, a title, capitals, or names and numbers as in code."""
    kind = draw.random()
    if kind < 0.7:
        common = COMMON.split()
        frequencies = range(len(common) + 20, 20, -1)
        words = [draw.choice([word.lower(), *draw.choices(common, frequencies, k=2)]) for word in words]
        if kind > 0.55:
            return " ".join(map(str.upper if kind > 0.63 else str.capitalize, words))
        between = [*[" "] * 16, ", ", "; ", " - ", f" {number(draw)} ", draw.choice(["’s ", "'s "])]
        text = "".join(word + draw.choice(between) for word in words).rstrip(" ,;-")
        return text[:1].upper() + text[1:] + draw.choice([".", ".", ".", "?", "!", ":", ""])
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
            number(draw).translate(FULL_WIDTH),
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


def list_mark(draw: random.Random) -> str:
    """Returns what an item of a list or a heading begins with."""
    n = draw.randint(1, 20)
    numbered = [f"{n}.", f"{n}、", f"{n}．", f"({n})", f"（{n}）", f"{n})", f"{n}.{n % 7}", f"{n}.{n % 7}.{n % 5}"]
    return draw.choice([*numbered, "①②③④⑤⑥⑦⑧⑨⑩"[n % 10], "•", "-"])


def mixed_line(draw: random.Random, text: str, words: list[str]) -> str:
    """Returns a line of hanzi and foreign parts, all with spaces around them or all without."""
    kind, space = draw.random(), draw.choice(["", " "])
    if kind < 0.2:  # of a form
        labels = draw.sample(LABELS.split(), 2)
        colon, between = draw.choice(["：", ":", ": ", " "]), draw.choice(["  ", " ", "，", "；", "|"])
        return between.join(f"{label}{colon}{foreign(draw, word)}" for label, word in zip(labels, words, strict=False))
    if kind < 0.35:
        return list_mark(draw) + space + text
    start, end = sorted(draw.randrange(len(text) + 1) for _ in range(2))
    if kind < 0.41:
        return text[:start] + draw.choice(DASHES) + text[start:]
    if kind < 0.5:
        left, right = draw.choice(PAIRS.split())
        return text[:start] + left + text[start:end] + right + text[end:]
    if kind < 0.6:  # a term in two languages
        around = draw.choice(["（{}）", "({})", " {}", " ({})", "：{}"])
        return text[: draw.randint(2, 8)].strip() + around.format(" ".join(words[:2]))
    seams = [match.end() for match in SEAM.finditer(text)] or [start]
    parts, start = [], 0
    for end, word in zip(sorted(draw.sample(seams, min(len(seams), draw.randint(1, 3)))), words, strict=False):
        parts += [text[start:end].strip(), foreign(draw, word)]
        start = end
    parts.append(text[start:].strip())
    joined = space.join(part for part in parts if part)
    return re.sub(" ?([，。：、（“]) ?", r"\1", joined) if space else joined


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
