"""How the server follows changes in its folder of versions, without a server."""

import asyncio
import shutil
import threading
import time

import pytest
import tensorflow as tf
from http_and_grpc import b64, post

from ocr.serving import warmup, wire
from ocr.serving.versions import AVAILABLE, END, Versions
from tfrecords.errors import InputError


def test_the_newest_version_that_can_be_loaded_is_served(exports, caplog):
    versions = Versions(exports)
    assert (versions.current.number, versions.states) == (1, {1: AVAILABLE})

    def refresh() -> int:
        asyncio.run(versions.refresh())
        return versions.current.number

    with caplog.at_level("INFO", "ocr"):
        assert refresh() == 1
        shutil.copytree(exports / "1", exports / "4", ignore=shutil.ignore_patterns("variables", "assets*"))  # half copied
        shutil.copytree(exports / "1", exports / "3")
        invalid = exports / "3" / "assets.extra" / warmup.NAME
        with tf.io.TFRecordWriter(str(invalid)) as writer:
            writer.write(wire.encode_log(wire.bytes_field(1, wire.int_field(3, 5)) + wire.bytes_field(2, b"")))
        shutil.copytree(exports / "1", exports / str(2**63))  # beyond what a server can number
        shutil.copytree(exports / "1", exports / "2")
        assert refresh() == 2
        assert versions.states == {1: END, 2: AVAILABLE}
        assert len(caplog.messages) == 3
        assert refresh() == 2
        assert len(caplog.messages) == 3, "a damaged version is reported once"
        shutil.copytree(exports / "1", exports / "4", dirs_exist_ok=True)  # copied in full
        assert refresh() == 4
    assert versions.states == {1: END, 2: END, 4: AVAILABLE}
    assert caplog.messages[0].startswith("version 4 is not served: ")
    assert caplog.messages[1].startswith(f"version 3 is not served: {invalid}: damaged")
    assert caplog.messages[2:] == ["version 2 replaces version 1", "version 4 replaces version 2"]


def test_deleting_the_newest_version_rolls_back(exports, files):
    shutil.copytree(exports / "1", exports / "2")
    versions = Versions(exports)
    expected = versions.current.export(files[:1])[0]
    shutil.rmtree(exports / "2")
    asyncio.run(versions.refresh())
    assert (versions.current.number, versions.states) == (1, {1: AVAILABLE, 2: END})
    shutil.rmtree(exports / "1")
    assert versions.current.export(files[:1])[0] == expected, "a loaded version no longer needs its files"
    assert versions.current.signatures.ByteSize() > 100


def test_one_version_is_not_a_folder_of_versions(exports):
    with pytest.raises(InputError, match="is one version; give the folder that holds it"):
        Versions(exports / "1")


def test_versions_that_vanish_or_cannot_be_listed_leave_the_current_one(exports, files, caplog, tmp_path):
    versions = Versions(exports)
    seed = tmp_path / "seed"
    for count in range(60):
        (seed / f"d{count}").mkdir(parents=True)
        (seed / f"d{count}" / "f").touch()
    (seed / "saved_model.pb").touch()
    stopped = threading.Event()

    def come_and_go() -> None:
        while not stopped.is_set():
            shutil.copytree(seed, exports / "9")
            shutil.rmtree(exports / "9")

    async def refresh() -> None:
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            await versions.refresh()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        asyncio.run(refresh())
    finally:
        stopped.set()
        thread.join()
    assert versions.states == {1: AVAILABLE}
    assert len(caplog.messages) <= 6, "each reason is logged once"
    shutil.copytree(exports / "1", exports / "0002")
    asyncio.run(versions.refresh())
    assert versions.current.number == 2


def test_the_server_outlives_a_folder_that_cannot_be_listed(serve_in_thread, exports, files, caplog):
    url = "/v1/models/ocr:predict"
    with serve_in_thread(exports, poll_s=0.02) as server:
        _, expected = post(server.rest + url, {"instances": [b64(files[0])]})
        exports.rename(exports.parent / "aside")
        exports.symlink_to(exports)  # ELOOP
        while "looking for new versions continues after a failure: OSError: " not in caplog.text:
            time.sleep(0.02)
        time.sleep(1.2)
        assert post(server.rest + url, {"instances": [b64(files[0])]}) == (200, expected)
        assert caplog.text.count("continues after a failure") == 1
        exports.unlink()
        (exports.parent / "aside").rename(exports)
        shutil.copytree(exports / "1", exports.parent / "2")
        (exports.parent / "2").rename(exports / "2")
        while "version 2 replaces version 1" not in caplog.text:
            time.sleep(0.05)
        assert post(server.rest + url, {"instances": [b64(files[0])]}) == (200, expected)
