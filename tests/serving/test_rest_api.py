import asyncio
import base64
import gzip
import json
import re
import socket
import time
import zlib

import grpc
import pytest
import tensorflow as tf
from http_and_grpc import b64, get, post, predict
from tensorflow_serving.apis import prediction_service_pb2_grpc


def test_a_response_has_the_form_of_its_request(server, files):
    url = f"{server.rest}/v1/models/ocr"
    one, two = b64(files[0]), b64(files[1])
    _, rows = post(f"{url}:predict", {"instances": [{"image_bytes": one}, {"image_bytes": two}]})
    assert post(f"{url}:predict", {"instances": [one, two]})[1] == rows
    assert post(f"{url}/versions/1:predict", {"signature_name": "serving_default", "instances": [one, two]})[1] == rows
    columns = {name: [row[name] for row in rows["predictions"]] for name in rows["predictions"][0]}
    assert post(f"{url}:predict", {"inputs": {"image_bytes": [one, two]}})[1] == {"outputs": columns}
    assert post(f"{url}:predict", {"inputs": [one, two]})[1] == {"outputs": columns}
    _, detailed = post(f"{url}:predict", {"signature_name": "detailed", "instances": [one]})
    (row,) = detailed["predictions"]
    assert "".join(row["chars"]) == row["text"]
    assert post(f"{url}:predict", {"instances": []})[1] == {"predictions": []}
    pixels = tf.io.decode_png(files[0])[:, :, 0].numpy()
    line = {"pixels": pixels.tolist(), "width": pixels.shape[1]}
    assert post(f"{url}:predict", {"signature_name": "lines", "instances": [line]})[1]["predictions"][0]["text"] == row["text"]


def predict_body(**fields: object) -> dict:
    return {"signature_name": "lines", **fields}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        pytest.param("ocr:predict", b"{", 400, "not JSON", id="no JSON"),
        pytest.param("ocr:predict", b"[" * 100_000, 400, "not JSON", id="nested too deeply"),
        pytest.param("ocr:predict", [], 400, "instances or inputs", id="list"),
        pytest.param("ocr:predict", {"instances": [], "inputs": []}, 400, "instances or inputs", id="both forms"),
        pytest.param("ocr:predict", {"instances": 3}, 400, "instances: not a list", id="number for instances"),
        pytest.param("ocr:predict", {"instances": [3]}, 400, "image_bytes: each must be", id="number for an image"),
        pytest.param("ocr:predict", {"instances": [{"b64": "no base64"}]}, 400, "b64: ", id="no base64"),
        pytest.param("ocr:predict", {"instances": [{"other": 1}]}, 400, "image_bytes: each must be", id="other input"),
        pytest.param(
            "ocr:predict",
            {"instances": [{"image_bytes": {"b64": ""}, "other": 1}]},
            400,
            "each must be an object with image_bytes",
            id="one input too many",
        ),
        pytest.param(
            "ocr:predict",
            {"inputs": {"images": []}},
            400,
            "the inputs are images; they must be image_bytes",
            id="other name of an input",
        ),
        pytest.param(
            "ocr:predict",
            {"signature_name": "none", "instances": []},
            400,
            "signature 'none': the model has",
            id="no signature",
        ),
        pytest.param(
            "ocr:predict",
            {"signature_name": 3, "instances": []},
            400,
            "signature_name must be a string",
            id="number for a signature",
        ),
        pytest.param(
            "ocr:predict",
            {"instances": [{"b64": ""}] * 129},
            400,
            "129 lines in a request; at most 128 are allowed",
            id="too many lines",
        ),
        pytest.param("ocr:predict", predict_body(inputs=[]), 400, "inputs must be an object with", id="two inputs in a list"),
        pytest.param(
            "ocr:predict", predict_body(inputs={"pixels": [[[1]]], "width": [1]}), 400, "pixels: shape", id="wrong height"
        ),
        pytest.param(
            "ocr:predict",
            predict_body(inputs={"pixels": [[[-1]] * 32], "width": [1]}),
            400,
            "not uint8",
            id="negative pixel",
        ),
        pytest.param(
            "ocr:predict",
            predict_body(inputs={"pixels": [[[1]] * 32], "width": [1, 2]}),
            400,
            "1 and 2 rows",
            id="different numbers of rows",
        ),
        pytest.param(
            "ocr:predict",
            predict_body(inputs={"pixels": [[[1], [1, 2]]], "width": [1]}),
            400,
            "different shapes",
            id="ragged pixels",
        ),
        pytest.param("ocr:predict", b'{"inputs": {"\\ud800": [1]}}', 400, "the inputs are \\ud800", id="half a surrogate pair"),
        pytest.param(
            "ocr:predict", b'{"instances": [' + b"[]," * 1_000_000 + b"0]}", 400, "1000001 lines in a request", id="a million"
        ),
        pytest.param("ocr/versions/7:predict", {"instances": []}, 404, "version 7", id="no version"),
        pytest.param("ocr/labels/stable:predict", {"instances": []}, 404, "label 'stable'", id="no label"),
        pytest.param("other:predict", {"instances": []}, 404, "model 'other' is not served", id="no model"),
        pytest.param("ocr:classify", {"instances": []}, 404, "Not Found", id="other method"),
        pytest.param("ocr:predict", b"0" * (65 * 2**20), 413, "exceeds 67108864 bytes", id="too large"),
    ],
)
def test_an_invalid_request_is_refused_with_its_reason(server, path, body, status, message):
    code, response = post(f"{server.rest}/v1/models/{path}", body)
    assert (code, list(response)) == (status, ["error"])
    assert message in response["error"]


def base64_of(file: bytes) -> str:
    return base64.b64encode(file).decode()


@pytest.mark.parametrize(
    "spell",
    [
        pytest.param(lambda file: base64.encodebytes(file).decode(), id="lines"),
        pytest.param(lambda file: base64.encodebytes(file).decode().replace("\n", "\r\n"), id="lines of Windows"),
        pytest.param(lambda file: base64_of(file).rstrip("="), id="no padding"),
        pytest.param(lambda file: base64.encodebytes(file).decode().rstrip("=\n").replace("\n", " \n\t "), id="indented lines"),
    ],
)
def test_base64_is_taken_as_tensorflow_serving_takes_it(server, files, spell):
    url = f"{server.rest}/v1/models/ocr:predict"
    for extra in (b"", b"\0", b"\0\0"):  # after the image's end, for each number of padding characters
        file = files[0] + extra
        assert post(url, {"instances": [{"b64": spell(file)}]}) == post(url, {"instances": [b64(file)]})


@pytest.mark.parametrize(
    ("image", "message"),
    [
        pytest.param(lambda file: base64_of(file), 'send base64 as {"b64": "…"}', id="bare base64"),
        pytest.param(lambda file: {"image_bytes": base64_of(file)}, 'send base64 as {"b64": "…"}', id="base64 by name"),
        pytest.param(lambda file: base64.encodebytes(file).decode().rstrip("=\n"), 'as {"b64": "…"}', id="lines, no padding"),
        pytest.param(lambda file: f"data:image/png;base64,{base64_of(file)}", "without a data: prefix", id="bare data URL"),
        pytest.param(lambda file: {"b64": f"data:image/png;base64,{base64_of(file)}"}, "leave out the prefix", id="data URL"),
        pytest.param(lambda file: {"b64": "AA=A"}, "b64: ", id="padding within"),
        pytest.param(lambda file: {"b64": "A"}, "b64: ", id="one character"),
        pytest.param(lambda file: {"b64": "ÄÖÜß"}, "b64: ", id="not ASCII"),
        pytest.param(lambda file: {"b64": "\ud800"}, "b64: ", id="half a surrogate pair"),
    ],
)
def test_other_base64_is_refused_with_a_hint(server, files, image, message):
    code, response = post(f"{server.rest}/v1/models/ocr:predict", {"instances": [image(files[0])]})
    assert code == 400
    assert message in response["error"]


def raw_deflate(body: bytes) -> bytes:
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(body) + encoder.flush()


@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("x-gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("identity", bytes),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
    ],
)
def test_an_encoded_body_is_decoded(server, files, encoding, encode):
    url, body = f"{server.rest}/v1/models/ocr:predict", json.dumps({"instances": [b64(files[0])]}).encode()
    assert post(url, encode(body), **{"Content-Encoding": encoding}) == post(url, body)


GZIPPED = gzip.compress(bytes(range(256)) * 20)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        pytest.param("gzip", b"no gzip", 400, id="no gzip"),
        pytest.param("gzip", b"", 400, id="empty"),
        pytest.param("gzip", GZIPPED[:-20], 400, id="cut gzip"),
        pytest.param("gzip", GZIPPED[:-8] + b"\0" * 8, 400, id="wrong checksum"),
        pytest.param("gzip", gzip.compress(b"{") + b"junk", 400, id="junk after gzip"),
        pytest.param("deflate", b"no deflate", 400, id="no deflate"),
        pytest.param("br", b"x", 400, id="br"),
        pytest.param("zstd", b"x", 400, id="zstd"),
        pytest.param("gzip, gzip", gzip.compress(GZIPPED), 400, id="twice"),
        pytest.param("unknown", b"x", 400, id="unknown"),
        pytest.param("gzip", gzip.compress(b"0" * (65 * 2**20), 1), 413, id="too large once decoded"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_refused(server, encoding, body, status):
    code, response = post(f"{server.rest}/v1/models/ocr:predict", body, **{"Content-Encoding": encoding})
    assert (code, list(response)) == (status, ["error"])
    assert (encoding if status == 400 else "exceeds") in response["error"]


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(b"POST /v1/models/ocr:predict HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", id="header"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="chunk"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", id="HTTP/2"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", id="long header"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\r\n\r\n", id="TLS"),
        pytest.param(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx", id="br to a page"),
    ],
)
def test_what_clients_send_leaves_no_traceback(server, sent: bytes):
    host, port = server.rest.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(sent)
        assert re.match(rb"HTTP/1.[01] 40\d ", connection.recv(1000))
    assert "Traceback" not in (server.exports.parent / "log").read_text("utf-8")


@pytest.mark.slow
def test_an_unfinished_body_neither_blocks_shutdown_nor_exceeds_the_limit(cold_exports):
    from aiohttp import web

    from ocr.serving import rest_api
    from ocr.serving.connections import Connections
    from ocr.serving.service import Service
    from ocr.serving.versions import Versions

    service = Service(Versions(cold_exports), max_batch=32, max_waiting=256, max_bytes=2**20, max_lines=128)

    async def send() -> list[bytes]:
        runner = web.AppRunner(rest_api.application(service, 2**20, Connections(10)), access_log=None, shutdown_timeout=60.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port, lines, writers = runner.addresses[0][1], [], []
        for length in (99_999_999_999, 1000):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writers.append(writer)
            writer.write(f"POST /v1/models/ocr:predict HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\n\r\n{{".encode())
            if length == 1000:
                await asyncio.sleep(0.2)
                service.draining = True  # as on shutdown
            lines.append(await reader.readline())
        await runner.cleanup()
        for writer in writers:
            writer.close()
        return lines

    begun = time.monotonic()
    too_large, unavailable = asyncio.run(send())
    assert too_large.startswith(b"HTTP/1.1 413 ")
    assert unavailable.startswith(b"HTTP/1.1 503 ")
    assert time.monotonic() - begun < 20.0


def test_requests_and_lines_are_counted_by_status(server, files):
    def counts() -> dict[str, float]:
        _, body = get(f"{server.rest}/monitoring/prometheus/metrics")
        return {name: float(re.search(f"^{re.escape(name)} (.*)$", body.decode(), re.M)[1]) for name in names}

    names = [f'ocr_requests_total{{code="{code}"}}' for code in ("OK", "INVALID_ARGUMENT", "NOT_FOUND")]
    names += ['ocr_lines_total{status="0"}', 'ocr_lines_total{status="1"}']
    names += [f'ocr_version_lines_total{{status="{status}",version="1"}}' for status in (0, 1)]
    names += ['ocr_confidence_count{version="1"}']
    url = f"{server.rest}/v1/models"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))

    def request_each() -> None:
        post(f"{url}/ocr:predict", {"instances": [b64(files[0]), b64(b"junk")]})
        post(f"{url}/ocr:predict", b"{")
        post(f"{url}/ocr:predict", b"0" * (65 * 2**20))
        post(f"{url}/ocr:predict", b"{", **{"Content-Encoding": "gzip"})
        post(f"{url}/other:predict", {"instances": []})
        predict(stub, files[:2])
        with pytest.raises(grpc.RpcError):
            predict(stub, files[:2], name="other")

    request_each()
    before = counts()
    request_each()
    assert [after - was for after, was in zip(counts().values(), before.values(), strict=True)] == [2, 3, 2, 3, 1, 3, 1, 3]


def test_the_server_says_that_it_is_alive_and_ready(server):
    assert get(f"{server.rest}/healthz") == (200, b"alive\n")
    assert get(f"{server.rest}/readyz") == (200, b"ready\n")
