"""The server's web page, in a headless browser."""

import asyncio
import contextlib
import itertools
import pathlib
import shutil
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest

from ocr.serving import saved_model

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome is installed to open the page with")


class Page:
    """A page in a browser, driven over the Chrome DevTools Protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse):
        self._socket = socket
        self._numbers = itertools.count(1)
        self.errors: list[str] = []

    async def call(self, method: str, **arguments) -> dict:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": arguments})
        while (message := await self._socket.receive_json(timeout=30)).get("id") != number:
            if message["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(str(message["params"]))
        assert "error" not in message, message
        return message["result"]

    async def run(self, script: str):
        result = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait(self, script: str):
        for _ in range(200):
            if value := await self.run(script):
                return value
            await asyncio.sleep(0.1)
        raise AssertionError(f"{script} is still {value!r}: {await self.run('document.body.innerText')}")

    async def choose(self, *paths: pathlib.Path) -> None:
        root = (await self.call("DOM.getDocument"))["root"]["nodeId"]
        field = (await self.call("DOM.querySelector", nodeId=root, selector="#files"))["nodeId"]
        await self.call("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=field)

    async def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            await self.call("Input.dispatchKeyEvent", type=kind, key=key)


@contextlib.asynccontextmanager
async def open_page(url: str, folder: pathlib.Path, language: str) -> AsyncIterator[Page]:
    line = [
        BROWSER,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        f"--accept-lang={language}",
        f"--user-data-dir={folder}",
    ]
    with subprocess.Popen([*line, "--remote-debugging-port=0", "about:blank"], stderr=subprocess.DEVNULL) as browser:
        try:
            port_file = folder / "DevToolsActivePort"
            while not port_file.exists() or not port_file.read_text():
                await asyncio.sleep(0.1)
            port = port_file.read_text().splitlines()[0]
            async with aiohttp.ClientSession() as session:
                async with session.get(f"http://127.0.0.1:{port}/json") as response:
                    (target,) = [each for each in await response.json() if each["type"] == "page"]
                async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                    page = Page(socket)
                    for domain in ("Page", "Runtime", "Log", "DOM"):
                        await page.call(f"{domain}.enable")
                    await page.call("Page.navigate", url=url)
                    await page.wait("document.readyState == 'complete' && location.href != 'about:blank'")
                    yield page
        finally:
            browser.terminate()


def test_chosen_images_are_read_and_characters_marked(trained, server, tmp_path):
    line = sorted((trained.lines / "eval").glob("*.png"))[0]
    (text,), _, _ = saved_model.load(trained.export)([line.read_bytes()])
    (tmp_path / "junk.png").write_bytes(b"junk")

    async def visit() -> None:
        async with open_page(f"{server.rest}/", tmp_path / "browser", "en") as page:
            await page.choose(line, tmp_path / "junk.png")
            await page.wait("document.querySelectorAll('.text, .error').length == 2")
            assert await page.run("document.querySelector('.text').textContent") == text
            assert (await page.run("document.querySelector('.error').textContent")).startswith("This image cannot be read: ")
            assert "Model version 1" in await page.run("document.querySelector('#model').textContent")
            # With the keyboard: focus the text, and move along its characters.
            await page.run("document.querySelector('.text').focus()")
            lefts = []
            for character in text:
                await page.press("ArrowRight")
                assert await page.run("document.querySelector('.selected').textContent") == character
                lefts.append(await page.run("parseFloat(document.querySelector('.picture i').style.left)"))
            assert lefts == sorted(lefts)
            assert 0 <= lefts[0] < lefts[-1] < 100
            await page.run("document.querySelector('#language').click()")
            assert await page.run("document.documentElement.lang + document.title") == "zh文字行识别"
            assert "无法读取这张图片：" in await page.run("document.body.innerText")
            assert page.errors == []

    asyncio.run(visit())


def test_a_text_is_corrected_if_the_server_keeps_corrections(trained, cold_exports, serve_in_thread, server, tmp_path):
    line = sorted((trained.lines / "eval").glob("*.png"))[2]
    folder = tmp_path / "corrections"
    buttons = "[...document.querySelectorAll('.result button')].map(each => each.textContent).join()"

    async def visit(rest: str) -> None:
        async with open_page(f"{rest}/", tmp_path / f"browser{rest[-4:]}", "en") as page:
            await page.choose(line)
            await page.wait("document.querySelectorAll('.text').length == 1")
            if rest == server.rest:
                assert await page.run(buttons) == "Copy"
                return
            assert await page.run(buttons) == "Correct,Copy"
            await page.run("document.querySelector('.result button').click()")
            await page.run("document.querySelector('.correction').value = ''")
            await page.run("document.querySelector('.result button').click()")
            await page.wait("document.querySelector('.error').textContent.startsWith('text: ')")
            await page.run("document.querySelector('.correction').value = '4711'")
            await page.press("Enter")
            await page.wait("document.querySelectorAll('.text').length == 1")
            assert "Saved as a correction" in await page.run("document.body.innerText")
            assert [error for error in page.errors if "400" not in error] == []

    asyncio.run(visit(server.rest))
    with serve_in_thread(cold_exports, corrections_dir=str(folder)) as address:
        asyncio.run(visit(address.rest))
    (text,) = folder.glob("*.gt.txt")
    assert text.read_text() == "4711\n"
    assert pathlib.Path(str(text).replace(".gt.txt", ".png")).read_bytes() == line.read_bytes()


def test_pasted_and_dropped_images_are_read_and_other_hosts_are_blocked(trained, server, tmp_path):
    line = sorted((trained.lines / "eval").glob("*.png"))[1]
    send = """(async (kind, bytes) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], kind + ".png", {type: "image/png"}));
        const event = kind == "paste" ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
                                     : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
        document.body.dispatchEvent(event);
    })"""

    async def visit() -> None:
        async with open_page(f"{server.rest}/", tmp_path / "browser", "zh") as page:
            assert await page.run("document.documentElement.lang") == "zh"
            for number, kind in enumerate(("paste", "drop"), 1):
                await page.run(f"{send}('{kind}', {list(line.read_bytes())})")
                await page.wait(f"document.querySelectorAll('.text').length == {number}")
            origins = await page.run("performance.getEntriesByType('resource').map(each => new URL(each.name).origin)")
            assert {origin for origin in origins if origin != "null"} == {server.rest}
            await page.run("document.body.insertAdjacentHTML('beforeend', '<img src=\"http://127.0.0.2/x.png\">')")
            await page.wait("true")
            assert any("Content Security Policy" in error for error in page.errors)

    asyncio.run(visit())


def test_a_text_is_compared_with_the_image(trained, server, tmp_path):
    line = sorted((trained.lines / "eval").glob("*.png"))[0]
    (text,), _, _ = saved_model.load(trained.export)([line.read_bytes()])
    wrong = text[0] + ("1" if text[1] != "1" else "2") + text[2:]

    async def visit() -> None:
        async with open_page(f"{server.rest}/", tmp_path / "browser", "en") as page:
            await page.choose(line)
            await page.wait("document.querySelector('.comparison')")

            async def compare(typed: str, reply: str) -> str:
                await page.run("document.querySelector('.comparison input').select()")
                await page.call("Input.insertText", text=typed)
                await page.run("document.querySelector('.comparison button').click()")
                return await page.wait(f"[document.querySelector('.verdict').innerText].find(text => text.includes('{reply}'))")

            assert "disagrees" not in await compare(text, "The image agrees: probability")
            assert await page.run("document.querySelectorAll('.doubtful').length") == 0
            await compare(wrong, "The image disagrees: probability")
            assert await page.run("document.querySelector('.doubtful').textContent") == wrong[1]
            assert await page.run("document.querySelectorAll('.doubtful').length") == 1
            await compare(text[:-1], f"It also shows: {text[-1]}")
            await compare("x", "This cannot be in the image")
            await compare("1" * 1001, "one has 1001 characters; at most 1000 are allowed")
            await page.run("document.querySelector('#language').click()")
            assert await page.run("document.querySelector('.comparison input').value") == "1" * 1001
            assert page.errors == []

    asyncio.run(visit())
