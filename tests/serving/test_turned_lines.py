"""An export that reads turned lines, too, by every way that it can be asked."""

import asyncio
import io
import json

import numpy as np
import pytest
import tensorflow as tf
from http_and_grpc import b64, post
from PIL import Image
from test_page import BROWSER, open_page

from ocr.saving import check_export, export
from ocr.serving import saved_model
from ocr.serving.client import Client

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def turning_exports(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("turning") / "export"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check_export, "inspect", lambda *_: [])  # a test below does that
        export.export(str(trained.workdir), str(folder), turned_lines=True, reread=True)
    return folder


@pytest.fixture(scope="module")
def on_side(files) -> list[bytes]:
    """Lines that stand on their side: turned clockwise by 90 degrees."""
    turned = [io.BytesIO() for _ in files[:40]]
    for file, source in zip(turned, files, strict=False):
        Image.open(io.BytesIO(source)).transpose(Image.Transpose.ROTATE_270).save(file, "png")
    return [file.getvalue() for file in turned]


def test_it_passes_every_check_and_says_that_it_turns_lines(turning_exports, invoke, last_json):
    done = invoke("ocr_export", f"--check={turning_exports}")
    assert done.returncode == 0, done.stderr
    assert "turned lines" in last_json(done)["checked"]
    about = json.loads((turning_exports / "1" / "assets.extra" / "model.json").read_text("utf-8"))
    assert about["turned_lines"] is True


def test_every_way_of_reading_turns_the_same_lines(trained, turning_exports, files, on_side, serve_in_thread):
    upright, _, _ = saved_model.load(trained.export)(files[: len(on_side)])
    expected = saved_model.load(turning_exports).predict("detailed", {"image_bytes": on_side})
    turned, texts = expected["turned"].tolist(), [text.decode() for text in expected["text"]]
    right = [text == other and degrees == 270 for text, other, degrees in zip(texts, upright, turned, strict=True)]
    assert sum(right) >= 0.8 * len(on_side)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as TensorFlow Serving runs it
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(turning_exports / "1"))
        signature = meta.signature_def["detailed"]
        names = [signature.outputs[name].name for name in ("text", "turned")]
        results = {"session": session.run(names, {signature.inputs["image_bytes"].name: on_side})}
    with serve_in_thread(turning_exports) as address:
        with Client(address.grpc) as client:
            outputs = client.predict("detailed", {"image_bytes": on_side})
            results["client"] = outputs["text"], outputs["turned"]
            assert client(on_side)[0] == texts
        body = {"signature_name": "detailed", "inputs": [b64(file) for file in on_side]}
        _, answer = post(f"{address.rest}/v1/models/ocr:predict", body)
        results["rest"] = [text.encode() for text in answer["outputs"]["text"]], np.array(answer["outputs"]["turned"])
    for way, (others, degrees) in results.items():
        assert [text.decode() for text in others] == texts, way
        assert degrees.tolist() == turned, way


@pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed to open the page with")
def test_the_page_says_how_an_image_was_turned_and_offers_no_comparison(
    turning_exports, files, on_side, serve_in_thread, tmp_path
):
    outputs = saved_model.load(turning_exports).predict("detailed", {"image_bytes": on_side})
    (tmp_path / "turned.png").write_bytes(on_side[int(np.argmax(outputs["turned"] == 270))])
    (tmp_path / "upright.png").write_bytes(files[0])
    forms = "document.querySelectorAll('.comparison').length"

    async def visit(rest: str) -> None:
        async with open_page(f"{rest}/", tmp_path / "browser", "en") as page:
            await page.choose(tmp_path / "turned.png")
            await page.wait("document.body.innerText.includes('read turned by 270°')")
            assert await page.run(forms) == 0
            await page.choose(tmp_path / "upright.png")
            await page.wait(f"{forms} == 1")
            buttons = "[...document.querySelectorAll('.result button')].map(each => each.textContent).join()"
            assert await page.run(buttons) == "Correct,Copy,Copy"  # the newest is on top
            assert (await page.run("document.body.innerText")).count("read turned") == 1
            assert page.errors == []

    with serve_in_thread(turning_exports, corrections_dir=str(tmp_path / "corrections")) as address:
        asyncio.run(visit(address.rest))
