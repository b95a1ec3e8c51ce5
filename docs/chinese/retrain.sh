#!/bin/sh
# Trains the Chinese model anew, from two text files to an export: about two hours on two cores with AMX. It can be ended at any moment
# and goes on where it was. The fonts are packages of Debian 12:
#   apt-get install fonts-noto-cjk fonts-noto-cjk-extra fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-uming \
#     fonts-arphic-gbsn00lp fonts-arphic-bsmi00lp fonts-cwtex-fs fonts-cwtex-heib fonts-cwtex-kai fonts-cwtex-ming \
#     fonts-cwtex-yen fonts-cns11643-kai fonts-cns11643-sung fonts-hanazono fonts-babelstone-han fonts-unifont \
#     fonts-smiley-sans fonts-droid-fallback fonts-ipaexfont-mincho fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho \
#     fonts-seto fonts-motoya-l-maruberi fonts-yozvox-yozfont fonts-yusei-magic fonts-reggae fonts-dotgothic16 \
#     fonts-liberation fonts-dejavu
set -eu
[ $# -eq 3 ] || { echo "usage: $0 CORPUS WORDS FOLDER: running text, a word a line, and where to work" >&2; exit 1; }
here=$(dirname "$0") corpus=$1 words=$2 out=$3
mkdir -p "$out"

# One line in fifty is kept for measuring. The alphabet: gb2312, and whatever else is in the texts.
awk 'NR % 50 != 0' "$corpus" > "$out/train.txt"
awk 'NR % 50 == 0' "$corpus" > "$out/held.txt"
awk 'NR % 50 != 0' "$words" > "$out/words.txt"
[ -e "$out/charset.txt" ] || python3 - "$corpus" "$words" > "$out/charset.txt" <<'PYTHON'
import sys
from ocr import charset
known = charset.named("gb2312").characters
seen = {c for path in sys.argv[1:] for c in open(path, encoding="utf-8").read()} - {"\n"}
print(charset.Charset(known + "".join(sorted(seen - set(known)))).file_text(), end="")
PYTHON

draw() { # NAME SEED COUNT and flags: lines to train on
    name=$1 seed=$2 count=$3
    shift 3
    [ -e "$out/$name/lines-train.manifest.json" ] || render_lines --flagfile="$here/fonts.flags" --output="$out/$name" \
        --tfrecords --charset="$out/charset.txt" --corpus="$out/train.txt:6" --words="$out/words.txt:1.5" --numbers=0.7 --latin=0.3 \
        --random=2.5 --seed="$seed" --count="$count" "$@"
}
round() { # NUMBER: lines that no other round has
    draw "$1/hard" "${1}1" 180000 --degrade=hard --width=0 --min_chars=1 --max_chars=30
    draw "$1/scan" "${1}2" 80000 --degrade=scan --width=0 --min_chars=1 --max_chars=30
    draw "$1/clean280" "${1}3" 50000 --degrade=clean --min_chars=4 --max_chars=11
    draw "$1/hard280" "${1}4" 60000 --degrade=hard --min_chars=4 --max_chars=12
    draw "$1/clean" "${1}5" 40000 --degrade=clean --width=0 --min_chars=1 --max_chars=30
    draw "$1/scan280" "${1}6" 40000 --degrade=scan --min_chars=4 --max_chars=12
}
train() { # ROUND WORKDIR and flags
    data=$out/$1 workdir=$out/$2
    shift 2
    ocr_train --train_data="$data/hard,$data/scan,$data/clean280,$data/hard280,$data/clean,$data/scan280" \
        --eval_data="$out/dev" --workdir="$workdir" --model=wide --charset="$out/charset.txt" --batch_size=64 \
        --precision=mixed_bfloat16 --warmup_steps=500 --ema=0.999 --eval_every=1500 --log_every=100 --override "$@"
}

[ -e "$out/dev" ] || render_lines --flagfile="$here/fonts.flags" --output="$out/dev" --split=eval --tfrecords \
    --charset="$out/charset.txt" --corpus="$out/held.txt" --count=600 --degrade=scan --width=0 --min_chars=3 --max_chars=20 \
    --seed=901
round 1
# First each frame is told which character it shows, then CTC alone finds the best place for each.
train 1 run1 --steps=10000 --learning_rate=0.002 --frame_loss=0.9
train 1 run2 --steps=6000 --learning_rate=0.001 --init_from="$out/run1"
ocr_export --workdir="$out/run2" --export_dir="$out/export"
