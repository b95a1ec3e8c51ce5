#!/bin/sh
# Trains the Chinese model from scratch, from two text files to an export. Estimated from its parts, this takes about three
# hours on two cores with AMX. It can be stopped at any moment; run it again to resume. The fonts are packages of Debian 12:
#   apt-get install fonts-noto-cjk fonts-noto-cjk-extra fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-uming \
#     fonts-arphic-gbsn00lp fonts-arphic-bsmi00lp fonts-cwtex-fs fonts-cwtex-heib fonts-cwtex-kai fonts-cwtex-ming \
#     fonts-cwtex-yen fonts-cns11643-kai fonts-cns11643-sung fonts-hanazono fonts-babelstone-han fonts-unifont \
#     fonts-smiley-sans fonts-droid-fallback fonts-ipaexfont-mincho fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho \
#     fonts-seto fonts-motoya-l-maruberi fonts-yozvox-yozfont fonts-yusei-magic fonts-reggae fonts-dotgothic16 \
#     fonts-liberation fonts-dejavu fonts-roboto-unhinted fonts-open-sans fonts-lato fonts-crosextra-carlito \
#     fonts-crosextra-caladea fonts-firacode fonts-jetbrains-mono fonts-hack fonts-inconsolata fonts-noto-mono \
#     fonts-linuxlibertine fonts-stix fonts-cantarell
set -eu
[ $# -eq 3 ] || { echo "usage: $0 CORPUS WORDS FOLDER (a file of running text, a file with one word a line, a folder to work in)" >&2; exit 1; }
here=$(dirname "$0") corpus=$1 words=$2 out=$3
mkdir -p "$out"

# One line in fifty is held out for evaluation. The alphabet is gb2312 plus every other character of the texts. Random hanzi
# are added so that each is seen often enough, and sequences of Latin words, which are too rare in the texts.
awk 'NR % 50 != 0' "$corpus" > "$out/train.txt"
awk 'NR % 50 == 0' "$corpus" > "$out/held.txt"
awk 'NR % 50 != 0' "$words" > "$out/words.txt"
[ -e "$out/latin.txt" ] || python3 - "$corpus" "$words" "$out" <<'PYTHON'
import collections, pathlib, random, re, sys
from ocr import charset
corpus, words, out = map(pathlib.Path, sys.argv[1:])
known = charset.charset_by_name("gb2312").characters
seen = {*corpus.read_text("utf-8"), *words.read_text("utf-8")} - {"\n"}
alphabet = charset.Charset(known + "".join(sorted(seen - set(known))))
(out / "charset.txt").write_text(alphabet.file_text(), "utf-8")
draw = random.Random(0)
hanzi = [character for character in alphabet.characters if re.fullmatch("[\u3007\u3400-\u9fff]", character)]
(out / "hanzi.txt").write_text("".join("".join(draw.choices(hanzi, k=30)) + "\n" for _ in range(100_000)), "utf-8")
counts = collections.Counter(re.findall("[A-Za-z][A-Za-z'-]*[A-Za-z]", (out / "train.txt").read_text("utf-8")))
weights = [count**0.5 for count in counts.values()]
cases = [str.lower, str.capitalize, str.upper, *[str] * 7]
between = [*[" "] * 8, ", ", ". ", "-", "_", "/", ".", "=", ": ", "; ", "(", ") "]
with open(out / "latin.txt", "w", encoding="utf-8") as file:
    for _ in range(60_000):
        parts = [draw.choice(cases)(word) + draw.choice(between) for word in draw.choices([*counts], weights, k=8)]
        parts[draw.randrange(8)] = f"{draw.randrange(10 ** draw.randint(1, 6))} "
        file.write("".join(parts).strip() + "\n")
PYTHON

draw() { # NAME SEED COUNT FLAGS...: draws records unless they exist
    name=$1 seed=$2 count=$3
    shift 3
    [ -e "$out/$name" ] || render_lines --flagfile="$here/fonts.flags" --output="$out/$name" --tfrecords \
        --charset="$out/charset.txt" --seed="$seed" --count="$count" "$@"
}
lines() { # NAME SEED COUNT FLAGS...: draws training lines
    draw "$@" --corpus="$out/train.txt:6,$out/hanzi.txt:1.7,$out/latin.txt:1" --words="$out/words.txt:1.5" --numbers=0.7 \
        --latin=0.3 --random=0.8
}
lines hard 1 270000 --degrade=hard --width=0 --min_chars=1 --max_chars=30
lines hard280 2 60000 --degrade=hard --min_chars=4 --max_chars=12
lines scan 3 130000 --degrade=scan --width=0 --min_chars=1 --max_chars=30
lines scan280 4 40000 --degrade=scan --min_chars=4 --max_chars=12
lines clean 5 40000 --degrade=clean --width=0 --min_chars=1 --max_chars=30
lines clean280 6 50000 --degrade=clean --min_chars=4 --max_chars=11
lines screen16 7 25000 --degrade=screen --width=0 --min_chars=1 --max_chars=36 --height=16
lines screen20 8 30000 --degrade=screen --width=0 --min_chars=1 --max_chars=36 --height=20
lines screen26 9 30000 --degrade=screen --width=0 --min_chars=1 --max_chars=36 --height=26
lines screen40 10 30000 --degrade=screen --width=0 --min_chars=1 --max_chars=36 --height=40
draw dev 901 600 --split=eval --corpus="$out/held.txt" --degrade=scan --width=0 --min_chars=3 --max_chars=20
draw dev_hard 907 600 --split=eval --corpus="$out/held.txt" --degrade=hard --width=0 --min_chars=3 --max_chars=20

train() { # WORKDIR FLAGS...
    name=$1
    shift
    ocr_train --train_data="$out/hard:27,$out/hard280:6,$out/scan:13,$out/scan280:4,$out/clean:4,$out/clean280:5,$out/screen16:3,$out/screen20:4,$out/screen26:4,$out/screen40:4" \
        --eval_data="$out/dev" --workdir="$out/$name" --model=wide --charset="$out/charset.txt" --batch_size=64 \
        --precision=mixed_bfloat16 --warmup_steps=500 --ema=0.999 --eval_every=1500 --log_every=100 --override "$@"
}
# The frame loss first teaches each frame its character, then CTC alone finds the best alignment.
train run1 --steps=10000 --learning_rate=0.002 --frame_loss=0.9
train run2 --steps=14000 --learning_rate=0.001 --init_from="$out/run1"
ocr_export --workdir="$out/run2" --export_dir="$out/export" --calibrate="$out/dev,$out/dev_hard"
