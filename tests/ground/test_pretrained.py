"""The model shipped with the package reads right after the installation."""

import json
import pathlib

from ocr import charset
from ocr.model import networks
from ocr.saving import warm_start
from ocr.serving import saved_model

LINES = sorted((pathlib.Path(__file__).parents[1] / "data").glob("*.[jp]*g"))  # named by their texts


def test_it_is_the_default_and_reads_chinese_lines(invoke):
    done = invoke("ocr_predict", *LINES)
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [row[1] for row in rows] == [path.stem for path in LINES]


def test_it_is_at_most_12_mb():
    folder = saved_model.newest_version(saved_model.PRETRAINED)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 12_000_000


def test_a_training_can_start_from_its_weights():
    model, origin = networks.build("mobile", 11), warm_start.load("pretrained", "mobile")
    assert warm_start.take_weights(model, charset.charset_by_name("digits"), origin) == 10


def test_it_describes_its_network_and_alphabet():
    description = json.loads(
        (saved_model.newest_version(saved_model.PRETRAINED) / "assets.extra" / "model.json").read_text("utf-8")
    )
    assert (description["network"], description["num_classes"]) == ("mobile", 9806)
    assert charset.charset_by_name("pretrained").fingerprint == description["alphabet"]
