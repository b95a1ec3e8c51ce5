#!/bin/sh
# Trains the Chinese model, network `mobile`, on real and rendered lines. It can be stopped at any moment; run it again to
# resume, on a processor of the same kind. Each round draws other lines and starts from the weights of the round before. The fonts
# are packages of Debian 12:
#   apt-get install fonts-noto-cjk fonts-noto-cjk-extra fonts-wqy-zenhei fonts-wqy-microhei fonts-arphic-uming \
#     fonts-arphic-gbsn00lp fonts-arphic-bsmi00lp fonts-cwtex-fs fonts-cwtex-heib fonts-cwtex-kai fonts-cwtex-ming \
#     fonts-cwtex-yen fonts-cns11643-kai fonts-cns11643-sung fonts-hanazono fonts-babelstone-han fonts-unifont \
#     fonts-smiley-sans fonts-droid-fallback fonts-ipaexfont-mincho fonts-morisawa-bizud-gothic fonts-morisawa-bizud-mincho \
#     fonts-seto fonts-motoya-l-maruberi fonts-yozvox-yozfont fonts-yusei-magic fonts-reggae fonts-dotgothic16 \
#     fonts-liberation fonts-dejavu fonts-roboto-unhinted fonts-open-sans fonts-lato fonts-crosextra-carlito \
#     fonts-crosextra-caladea fonts-firacode fonts-jetbrains-mono fonts-hack fonts-inconsolata fonts-noto-mono \
#     fonts-linuxlibertine fonts-stix fonts-cantarell \
#     fonts-urw-base35 fonts-texgyre fonts-lmodern fonts-cmu fonts-junicode fonts-cardo fonts-oldstandard fonts-vollkorn \
#     fonts-sil-gentium fonts-sil-gentiumplus fonts-goudybookletter fonts-fanwood fonts-prociono fonts-essays1743 \
#     fonts-gfs-artemisia fonts-gfs-didot fonts-quattrocento fonts-freefont-otf fonts-croscore fonts-noto-core \
#     fonts-clear-sans fonts-tuffy fonts-adf-accanthis fonts-adf-baskervald fonts-adf-berenis fonts-adf-gillius \
#     fonts-adf-ikarius fonts-adf-libris fonts-adf-mekanus fonts-adf-romande fonts-adf-switzera fonts-adf-tribun \
#     fonts-adf-universalis fonts-play fonts-national-park fonts-junction fonts-courier-prime fonts-averia-serif-gwf \
#     fonts-comfortaa fonts-dosis fonts-league-spartan
# and display type from npm (fetch_fonts.sh). The texts need `pip install opencc-python-reimplemented`, those in Latin letters
# manuals, quotations and word lists:
#   apt-get install manpages manpages-dev manpages-de manpages-fr manpages-es manpages-it manpages-pt-br manpages-nl \
#     manpages-da fortunes fortunes-de fortunes-es fortunes-it fortunes-br wamerican wngerman wfrench wspanish witalian \
#     wbrazilian wdutch
set -eu
[ $# -ge 4 ] || {
    echo "usage: $0 CORPUS WORDS REAL FOLDER [ROUND [WEIGHTS]]
CORPUS: a file of running text. WORDS: a file with one word a line. REAL: a folder of folders of real lines, as in
split_real.py. FOLDER: to work in. ROUND: 1, or a later one. WEIGHTS: export that a later round starts from, if not that of the
round before in FOLDER. The environment variables FRAME_STEPS (3000) and STEPS (9000) are the lengths of the two phases." >&2
    exit 1
}
here=$(dirname "$0") corpus=$1 words=$2 real=$3 out=$4 round=${5:-1} weights=${6:-}
[ "$round" = 1 ] || weights=${weights:-$out/export}
mkdir -p "$out"

# shellcheck disable=SC2046 # one word for each file
[ -e "$out/charset.txt" ] || python3 "$here/make_texts.py" "$corpus" "$words" "$out" $(ls "$real"/*/labels.tsv)

[ -e "$out/latin/charset.txt" ] || python3 "$here/latin_texts.py" "$out/latin"

pack() { # IMAGES LABELS RECORDS SPLIT: packs real lines unless it is done
    [ -e "$3/lines-$4.manifest.json" ] || make_tfrecords --images="$1" --labels="$2" --label_format=text --charset="$out/charset.txt" --output="$3" --split="$4" \
        --pixels_per_frame=3 --check=header --resume
}

# The packages are left if it was stopped.
{ [ -e "$out/fonts/hanzi" ] && [ ! -e "$out/fonts/packages" ]; } || sh "$here/fetch_fonts.sh" "$out/fonts"

# Real lines, by kind; a tenth of the repositories they come from is held out. A kind may be in one folder only.
# The others are also trained on as copies that are harder to read, and, but for pages, in pieces put together anew.
for source in "$real"/*/; do
    [ -e "$source/meta.tsv" ] || continue
    labels=$out/labels_$(basename "$source")
    [ -e "$labels" ] || python3 "$here/split_real.py" "$source" "$out/charset.txt" "$labels"
    for file in "$labels"/*.tsv; do
        name=$(basename "$file" .tsv)
        kind=${name%-*}
        pack "$source" "$file" "$out/real_$kind" "${name#*-}"
        [ "$name" = "$kind-train" ] || continue
        harder=$out/$round-harder_$kind
        [ -e "$harder/labels.tsv" ] || {
            rm -rf "$harder"
            python3 "$here/degrade_real.py" "$source" "$file" "$harder" 3 "$round"
        }
        pack "$harder" "$harder/labels.tsv" "$harder/records" train
        [ "$kind" != pdf ] && [ "$round" != 1 ] || continue
        pieces=$out/$round-pieces_$kind
        [ -e "$pieces/labels.tsv" ] || {
            rm -rf "$pieces"
            python3 "$here/recombine_real.py" "$weights" "$source" "$file" "$pieces" 3 "$round"
        }
        pack "$pieces" "$pieces/labels.tsv" "$pieces/records" train
    done
done

draw() { # NAME SEED COUNT FLAGS...: draws records unless they exist
    name=$1 seed=$2 count=$3
    shift 3
    # Without records the folder is left from a drawing that was stopped.
    [ -e "$out/$name/dataset_info.json" ] || rm -rf "${out:?}/$name"
    [ -e "$out/$name" ] || render_lines --output="$out/$name" --tfrecords --charset="$out/charset.txt" --seed="$seed" \
        --count="$count" --width=0 "$@"
}
lines() { # NAME SEED COUNT FLAGS...: draws training lines of this round
    name=$1 seed=$2
    shift 2
    draw "$round-$name" $((round * 100 + seed)) "$@" --words="$out/words.txt:1.2" --numbers=0.5 --latin=0.3 --random=0.3 \
        --corpus="$out/train.txt:5,$out/hanzi.txt:1.5,$out/latin.txt:1,$out/mixed.txt:2,$out/traditional.txt:0.8"
}
text=--flagfile=$here/fonts.flags display=--fonts=$out/fonts/hanzi/*.ttf:8,$out/fonts/latin/*.ttf:1
hanzi() { # NAME SEED COUNT FLAGS...: the same of hanzi alone, each as often as the others: text has too few of most of them
    name=$1 seed=$2
    shift 2
    draw "$round-$name" $((round * 100 + seed)) "$@" "$text" --corpus="$out/hanzi.txt" --min_chars=3 --max_chars=14
}
latin() { # STYLE SEED COUNT: the same of Western European languages alone
    draw "$round-latin_$1" $((round * 100 + $2)) "$3" --charset="$out/latin/charset.txt" --degrade="$1" --height=40 \
        --flagfile="$here/latin_fonts.flags" --random=0.4 --min_chars=2 --max_chars=60 --corpus="$latin_texts"
}
latin_texts=
for language in en:3 de:3 fr:1.5 es:1 it:1 pt:0.5 nl:0.5 da:0.5 words:2; do
    latin_texts="$latin_texts$out/latin/${language%:*}.txt:${language#*:},"
done
latin_texts=${latin_texts%,}
lines photo 1 40000 "$text" --degrade=photo --height=48 --min_chars=1 --max_chars=30
lines sign 2 25000 "$text" --degrade=sign --height=48 --min_chars=1 --max_chars=10
lines page 3 40000 "$text" --degrade=page --height=48 --min_chars=1 --max_chars=40
lines hard 4 30000 "$text" --degrade=hard --height=32 --min_chars=1 --max_chars=30
lines clean 5 12000 "$text" --degrade=clean --height=32 --min_chars=1 --max_chars=30
lines screen 6 12000 "$text" --degrade=screen --height=24 --min_chars=1 --max_chars=36
lines display_photo 7 30000 "$display" --degrade=photo --height=48 --min_chars=1 --max_chars=14
lines display_sign 8 25000 "$display" --degrade=sign --height=48 --min_chars=1 --max_chars=10
hanzi hanzi_photo 9 15000 --degrade=photo --height=48
hanzi hanzi_page 10 15000 --degrade=page --height=48
hanzi hanzi_clean 11 20000 --degrade=clean --height=32
# Room beside the text, which is no space.
lines room_clean 12 4000 "$text" --degrade=clean --height=32 --width=280 --min_chars=1 --max_chars=10
lines room_screen 13 2500 "$text" --degrade=screen --height=24 --width=320 --min_chars=1 --max_chars=12
lines room_page 14 2500 "$text" --degrade=page --height=48 --width=480 --min_chars=1 --max_chars=10
lines room_photo 15 2500 "$text" --degrade=photo --height=48 --width=400 --min_chars=1 --max_chars=8
lines room_hard 16 1500 "$text" --degrade=hard --height=32 --width=280 --min_chars=1 --max_chars=8
lines room_scan 17 2500 "$text" --degrade=scan --height=32 --width=280 --min_chars=1 --max_chars=10
lines scan 18 8000 "$text" --degrade=scan --height=32 --min_chars=1 --max_chars=30
latin page 21 9000
latin scan 22 7000
latin clean 23 4000
latin photo 24 5000
latin screen 25 4000
latin hard 26 3000
latin sign 27 1500
draw dev_clean 901 600 "$text" --split=eval --corpus="$out/held.txt" --degrade=clean --height=32 --min_chars=3 --max_chars=20
draw dev_hard 907 600 "$text" --split=eval --corpus="$out/held.txt" --degrade=hard --height=32 --min_chars=3 --max_chars=20
draw dev_hanzi 911 600 "$text" --split=eval --corpus="$out/hanzi.txt" --degrade=clean --height=32 --min_chars=10 --max_chars=10
draw dev_latin 921 400 --split=eval --corpus="$out/latin/en_held.txt,$out/latin/de_held.txt" --height=40 --min_chars=20 \
    --max_chars=60 --flagfile="$here/latin_fonts.flags" --degrade=clean

# bfloat16 is faster on processors with AMX and on AMD's with avx512_bf16, slower on Intel's without AMX, and very slow elsewhere.
precision=float32
if grep -q amx_bf16 /proc/cpuinfo || { grep -q AuthenticAMD /proc/cpuinfo && grep -q avx512_bf16 /proc/cpuinfo; }; then
    precision=mixed_bfloat16
fi
train() { # WORKDIR FLAGS...
    name=$1
    shift
    # Of a hundred lines a third are real, copies and pieces included. With more of them as they are the network learns them by heart.
    # A fifth are random hanzi: with fewer it takes rare ones for common ones that look alike.
    data="$out/$round-photo:11,$out/$round-sign:8,$out/$round-page:8,$out/$round-hard:12,$out/$round-clean:4,$out/$round-screen:4"
    data="$data,$out/$round-scan:3,$out/$round-display_photo:8,$out/$round-display_sign:8"
    data="$data,$out/$round-hanzi_photo:10,$out/$round-hanzi_page:8,$out/$round-hanzi_clean:10"
    for style in clean screen scan page photo hard; do data="$data,$out/$round-room_$style:3"; done
    for style in page:8 scan:7 clean:5 photo:5 screen:4 hard:3 sign:2; do data="$data,$out/$round-latin_$style"; done
    data="$data,$out/real_photo:6,$out/real_screen:3,$out/real_pdf:6,$out/real_scan:1"
    data="$data,$out/$round-harder_photo/records:6,$out/$round-harder_screen/records:2"
    data="$data,$out/$round-harder_pdf/records:4,$out/$round-harder_scan/records:1"
    [ "$round" = 1 ] || data="$data,$out/$round-pieces_photo/records:14,$out/$round-pieces_screen/records:5,$out/$round-pieces_scan/records:3"
    ocr_train --train_data="$data" \
        --eval_data="$out/real_photo" --workdir="$out/$name" --model=mobile --charset="$out/charset.txt" --batch_size=32 \
        --precision="$precision" --optimizer=muon --ema=0.9995 --augment=0.5 --eval_every=500 --checkpoint_every=250 \
        --log_every=100 --override "$@"
}
trained=$out/round$round
if [ "$round" = 1 ]; then
    # The frame loss first teaches each frame its character, then CTC alone finds the best alignment.
    train frames --steps="${FRAME_STEPS:-3000}" --learning_rate=0.002 --warmup_steps=300 --frame_loss=0.9
    train round1 --steps="${STEPS:-9000}" --learning_rate=0.0012 --warmup_steps=200 --init_from="$out/frames"
elif [ ! -e "$trained" ]; then
    # The average of two trainings and of the weights that they started from reads better than any of them: see experiments.md.
    for seed in 1 2; do
        train "$round-seed$seed" --steps="${STEPS:-9000}" --learning_rate=0.0012 --warmup_steps=200 --init_from="$weights" --seed="$seed"
    done
    rm -rf "$trained.part"
    python3 "$here/average_weights.py" "$weights" "$out/$round-seed1" "$out/$round-seed2" "$trained.part" "$out/real_photo@eval"
    mv "$trained.part" "$trained"
fi
for data in real_photo real_screen real_pdf real_scan dev_clean dev_hard dev_hanzi dev_latin; do
    ocr_eval --model="$trained" --data="$out/$data@eval"
done
ocr_export --workdir="$trained" --export_dir="$out/export" --reread --calibrate="$out/real_photo@eval"
