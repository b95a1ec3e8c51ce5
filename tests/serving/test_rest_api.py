import asyncio
import re
import time

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
        pytest.param("ocr:predict", b"0" * (65 * 2**20), 413, "exceeded", id="too large"),
    ],
)
def test_an_invalid_request_is_refused_with_its_reason(server, path, body, status, message):
    code, response = post(f"{server.rest}/v1/models/{path}", body)
    assert (code, list(response)) == (status, ["error"])
    assert message in response["error"]


def test_a_body_in_another_encoding_than_announced_is_refused(server):
    code, response = post(f"{server.rest}/v1/models/ocr:predict", b"{}", **{"Content-Encoding": "gzip"})
    assert (code, response["error"][:26]) == (400, "the body cannot be read: 4")


@pytest.mark.slow
def test_an_unfinished_body_neither_blocks_shutdown_nor_exceeds_the_limit(cold_exports):
    from aiohttp import web

    from ocr.serving import rest_api
    from ocr.serving.service import Service
    from ocr.serving.versions import Versions

    service = Service(Versions(cold_exports), max_batch=32, max_waiting=256, max_bytes=2**20, max_lines=128)

    async def send() -> list[bytes]:
        runner = web.AppRunner(rest_api.application(service, 2**20), access_log=None, shutdown_timeout=60.0)
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
    url = f"{server.rest}/v1/models"
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(server.grpc))

    def request_each() -> None:
        post(f"{url}/ocr:predict", {"instances": [b64(files[0]), b64(b"junk")]})
        post(f"{url}/ocr:predict", b"{")
        post(f"{url}/other:predict", {"instances": []})
        predict(stub, files[:2])
        with pytest.raises(grpc.RpcError):
            predict(stub, files[:2], name="other")

    request_each()
    before = counts()
    request_each()
    assert [after - was for after, was in zip(counts().values(), before.values(), strict=True)] == [2, 1, 2, 3, 1]


def test_the_server_says_that_it_is_alive_and_ready(server):
    assert get(f"{server.rest}/healthz") == (200, b"alive\n")
    assert get(f"{server.rest}/readyz") == (200, b"ready\n")
