#!/bin/sh
# Fetches display type from npm, as signs, posters and packaging have it: brush and handwriting, heavy, narrow and decorated
# letters. Writes FOLDER/hanzi/*.ttf and FOLDER/latin/*.ttf: see merge_fonts.py. What is unseen in measurements stays away:
# LXGW WenKai and its relatives, AR PL UKai and KaitiM. It needs npm, and `pip install fonttools brotli`.
set -eu
[ $# = 1 ] || {
    echo "usage: $0 FOLDER" >&2
    exit 1
}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1/packages"
cd "$1/packages"
for package in \
    @chinese-fonts/bwckkt @chinese-fonts/cubic @chinese-fonts/dymh @chinese-fonts/dyzgt @chinese-fonts/hlxsjt @chinese-fonts/jxzk \
    @chinese-fonts/kksjt @chinese-fonts/mksjh @chinese-fonts/mkwtyt @chinese-fonts/stmdxf @chinese-fonts/sypxzs @chinese-fonts/tjl \
    @chinese-fonts/ysbth @fontsource/chocolate-classical-sans @fontsource/mochiy-pop-one @fontsource/zen-antique \
    @fontsource/dela-gothic-one @fontsource/hachi-maru-pop @fontsource/huninn @fontsource/kaisei-decol \
    @fontsource/liu-jian-mao-cao @fontsource/long-cang @fontsource/ma-shan-zheng @fontsource/potta-one @fontsource/rampart-one \
    @fontsource/rocknroll-one @fontsource/stick @fontsource/train-one @fontsource/wdxl-lubrifont-sc @fontsource/wdxl-lubrifont-tc \
    @fontsource/yuji-boku @fontsource/yuji-mai @fontsource/zcool-kuaile @fontsource/zcool-qingke-huangyou @fontsource/zcool-xiaowei \
    @fontsource/zhi-mang-xing \
    @fontsource/abril-fatface @fontsource/anton @fontsource/archivo-black @fontsource/bebas-neue @fontsource/black-ops-one \
    @fontsource/caveat @fontsource/dancing-script @fontsource/lobster @fontsource/montserrat @fontsource/orbitron \
    @fontsource/oswald @fontsource/pacifico @fontsource/permanent-marker @fontsource/playfair-display @fontsource/poppins \
    @fontsource/press-start-2p @fontsource/rubik-mono-one; do
    name=$(echo "$package" | tr -d @ | tr / -)
    [ -e "$name" ] || {
        tarball=$(npm pack --silent "$package")
        mkdir "$name.part"
        tar xzf "$tarball" -C "$name.part"
        rm "$tarball"
        mv "$name.part" "$name"
    }
done
cd ..
python3 "$here/merge_fonts.py" packages .
rm -r packages
