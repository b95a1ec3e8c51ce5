"""Several versions at once and labels, as TensorFlow Serving has them."""

import asyncio
import json
import shutil
import time

import grpc
import numpy as np
import pytest
from http_and_grpc import b64, get, post, predict_request, texts
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, prediction_service_pb2_grpc

from ocr.serving.client import Client
from ocr.serving.service import ModelRequest, Service
from ocr.serving.version_policy import parse_policy
from ocr.serving.versions import AVAILABLE, END, UNLOADING, Versions
from tfrecords.errors import InputError


@pytest.fixture
def exports(cold_exports, tmp_path):
    """A folder of the versions 1, 2 and 3."""
    for version in (1, 2, 3):
        shutil.copytree(cold_exports / "1", tmp_path / "export" / str(version))
    return tmp_path / "export"


def test_versions_are_served_by_number_and_by_label(serve_in_thread, exports, files):
    options = {"model_name": "lines", "model_version_policy": "latest:2", "version_labels": "stable:2,canary:4"}
    with serve_in_thread(exports, poll_s=0.05, **options) as server, grpc.insecure_channel(server.grpc) as channel:
        stub, url = prediction_service_pb2_grpc.PredictionServiceStub(channel), f"{server.rest}/v1/models/lines"
        expected = texts(stub.Predict(predict_request(files[:1], name="lines")))

        def version_of(**named: object) -> int:
            request = predict_request(files[:1], name="lines")
            if "version" in named:
                request.model_spec.version.value = named["version"]
            if "version_label" in named:
                request.model_spec.version_label = named["version_label"]
            response = stub.Predict(request)
            assert (texts(response), response.model_spec.name) == (expected, "lines")
            return response.model_spec.version.value

        def versions() -> dict[str, str]:
            states = json.loads(get(url)[1])["model_version_status"]
            assert all(each["status"] == {"error_code": "OK", "error_message": ""} for each in states)
            return {each["version"]: each["state"] for each in states}

        assert versions() == {"3": "AVAILABLE", "2": "AVAILABLE"}
        assert (version_of(), version_of(version=2), version_of(version=3), version_of(version_label="stable")) == (3, 2, 3, 2)
        body = {"instances": [b64(files[0])]}
        for path in ("", "/versions/2", "/versions/3", "/labels/stable"):
            status, response = post(f"{url}{path}:predict", body)
            assert (status, response["predictions"][0]["text"]) == (200, expected[0]), path
        assert json.loads(get(f"{url}/labels/stable/metadata")[1])["model_spec"]["version"] == "2"
        assert [each["version"] for each in json.loads(get(f"{url}/labels/stable")[1])["model_version_status"]] == ["2"]
        for path, message in {
            "lines/versions/1": "version 1, is not served; versions 2, 3 of 'lines' are",
            "lines/labels/none": "label 'none', is not served",
            "lines/labels/canary": "label 'canary', which is version 4, is not served; versions 2, 3 of 'lines' are",
            "ocr": "model 'ocr' is not served",
        }.items():
            status, response = post(f"{server.rest}/v1/models/{path}:predict", body)
            assert (status, message in response["error"]) == (404, True), response
        with Client(server.grpc, model="lines") as client:
            assert client(files[:1])[0] == expected
        assert b'data-model="lines"' in get(server.rest)[1]

        shutil.copytree(exports / "1", exports.parent / "4")
        (exports.parent / "4").rename(exports / "4")
        while versions() != {"4": "AVAILABLE", "3": "AVAILABLE", "2": "END"}:
            time.sleep(0.05)
        assert (version_of(), version_of(version_label="canary"), version_of(version=3)) == (4, 4, 3)
        with pytest.raises(grpc.RpcError) as caught:
            version_of(version_label="stable")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_policy_chooses_what_is_loaded(exports, caplog):
    def refresh(versions: Versions) -> list[int]:
        asyncio.run(versions.refresh())
        return sorted(versions.served)

    with pytest.raises(InputError, match=r"--model_version_policy: .* has none of these versions, but 1, 2, 3"):
        Versions(exports, parse_policy("specific:8,9"))
    versions = Versions(exports, parse_policy("specific:1,3,5"))
    kept = versions.served[3]
    assert sorted(versions.served) == [1, 3]
    with caplog.at_level("INFO", "ocr"):
        (exports / "2").rename(exports / "5")
        assert refresh(versions) == [1, 3, 5]
        shutil.rmtree(exports / "1")
        (exports / "5" / "saved_model.pb").write_bytes(b"junk")  # loaded already
        assert refresh(versions) == [3, 5]
        for number in ("3", "5"):
            shutil.rmtree(exports / number)
        assert refresh(versions) == [3, 5], "the last ones stay"
    assert versions.served[3] is kept, "loaded once"
    assert caplog.messages == ["version 5 is served too", "version 1 is no longer served"]


def test_a_version_that_cannot_be_loaded_is_listed_with_its_error(serve_in_thread, exports, caplog):
    shutil.rmtree(exports / "3")
    with serve_in_thread(exports, poll_s=0.05, model_version_policy="all") as server:
        (exports / "7").mkdir()
        (exports / "7" / "saved_model.pb").write_bytes(b"junk")
        while "version 7 is not served" not in caplog.text:
            time.sleep(0.05)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "ocr"
        with grpc.insecure_channel(server.grpc) as channel:
            states = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request).model_version_status
        assert [(each.version, each.state) for each in states] == [(7, END), (2, AVAILABLE), (1, AVAILABLE)]
        assert states[0].status.error_code == grpc.StatusCode.UNKNOWN.value[0]
        assert "damaged" in states[0].status.error_message


def test_requests_in_flight_finish_with_a_version_that_is_unloaded(exports, files):
    versions = Versions(exports)
    expected = versions.current.export(files[:8])[0]
    service = Service(versions, max_batch=8, max_waiting=256, max_bytes=2**24, max_lines=128)
    inputs = {"image_bytes": np.array(files[:8], object)}

    async def work() -> None:
        running = asyncio.create_task(service.run(3600.0))
        signature = service.find_signature(ModelRequest("ocr", 3))
        requests = [asyncio.create_task(service.predict(signature, inputs, None)) for _ in range(3)]
        await asyncio.sleep(0)
        shutil.rmtree(exports / "3")
        await versions.refresh()
        requests.append(asyncio.create_task(service.predict(signature, inputs, None)))  # its body was still being read
        assert versions.states == {2: AVAILABLE, 3: UNLOADING}
        for request in requests:
            assert [text.decode() for text in (await request)["text"]] == expected
        del signature, requests, request
        await asyncio.sleep(0.1)
        assert versions.states == {2: AVAILABLE, 3: END}
        running.cancel()

    asyncio.run(work())
