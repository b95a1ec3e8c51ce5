"""The page as static files, which reads in the browser without a server of ours."""

import asyncio
import functools
import http.server
import pathlib
import shutil
import subprocess
import tarfile
import threading

import pytest
from test_page import BROWSER, open_page

from ocr.saving import edge, web_page
from ocr.serving import saved_model
from tfrecords.errors import InputError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed to open the page with"),
    pytest.mark.skipif(shutil.which("npm") is None, reason="no npm is installed to get onnxruntime-web with"),
]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("npm")
    packed = subprocess.run(["npm", "pack", "--silent", "onnxruntime-web@1.30.0"], cwd=folder, capture_output=True, check=False)
    if packed.returncode:
        pytest.skip("onnxruntime-web cannot be fetched")
    with tarfile.open(folder / packed.stdout.decode().strip()) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_page_reads_ten_lines_as_the_export_does_with_the_network_off(trained, package, tmp_path):
    edge.convert(trained.export, tmp_path / "site", "web", "float16", f"{trained.records}@eval", str(package))
    lines = sorted((trained.lines / "eval").glob("*.png"))[:10]
    texts, confidences, _ = saved_model.load(trained.export)([line.read_bytes() for line in lines])
    (tmp_path / "junk.png").write_bytes(b"junk")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=tmp_path / "site"))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    async def visit() -> None:
        async with open_page(f"{address}/", tmp_path / "browser", "en") as page:
            await page.wait("document.querySelector('#model').textContent == 'Model version 1'")  # the model is loaded
            server.shutdown()
            server.server_close()
            await page.call("Network.enable")
            offline = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            await page.call("Network.emulateNetworkConditions", offline=True, **offline)
            await page.choose(*lines, tmp_path / "junk.png")
            await page.wait("document.querySelectorAll('.text, .error').length == 11")
            shown = "[...document.querySelectorAll('li')].reverse().map(each => each.querySelector('{}')?.textContent)"
            assert await page.run(shown.format(".text")) == [*texts, None]
            percents = await page.run(shown.format(".confidence"))
            assert [float(each.split()[1].rstrip("%")) for each in percents[:10]] == pytest.approx(100 * confidences, abs=0.2)
            assert (await page.run(shown.format(".error")))[10].startswith("This image cannot be read: ")
            assert await page.run("document.querySelector('.comparison').checkVisibility()") is False
            await page.run("document.querySelector('.text').focus()")
            await page.press("ArrowRight")
            assert await page.run("document.querySelectorAll('.selected').length") == 1
            origins = await page.run("performance.getEntriesByType('resource').map(each => new URL(each.name).origin)")
            assert {origin for origin in origins if origin != "null"} == {address}
            assert page.errors == []

    asyncio.run(visit())


def test_a_folder_that_is_not_the_npm_package_is_refused(tmp_path):
    with pytest.raises(InputError, match="npm install onnxruntime-web"):
        web_page.check_package(str(tmp_path))
