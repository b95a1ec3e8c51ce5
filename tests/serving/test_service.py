"""Batching and limits, without a network in between."""

import asyncio
from collections.abc import Awaitable, Callable

import grpc
import numpy as np
import pytest

from ocr.serving.service import ModelRequest, RequestError, Service
from ocr.serving.versions import Versions

OCR = ModelRequest("ocr")
DETAILED = ModelRequest("ocr", signature="detailed")


@pytest.fixture(scope="module")
def versions(cold_exports) -> Versions:
    return Versions(cold_exports)


def run(service: Service, work: Callable[[], Awaitable]):
    """Runs requests beside the service, and returns what `work` returns; once a service, for it stays with its loop."""

    async def both():
        running = asyncio.create_task(service.run(3600.0))
        try:
            return await work()
        finally:
            running.cancel()

    return asyncio.run(both())


def image_bytes(files: list[bytes]) -> dict[str, np.ndarray]:
    array = np.empty(len(files), object)
    array[:] = files
    return {"image_bytes": array}


def test_overload_is_refused_and_accepted_requests_are_answered(versions, files):
    service = Service(versions, max_batch=8, max_waiting=16, max_bytes=2**20, max_lines=128)
    expected = versions.current.export(files[:8])[0]

    async def overload():
        requests = [service.predict(service.find_signature(OCR), image_bytes(files[:8]), None) for _ in range(100)]
        results = await asyncio.gather(*requests, return_exceptions=True)
        return results, await service.predict(service.find_signature(OCR), image_bytes(files[:1]), None)

    results, after = run(service, overload)
    refused = [result for result in results if isinstance(result, RequestError)]
    answered = [result for result in results if not isinstance(result, RequestError)]
    assert {error.code for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(answered) >= 2
    assert len(refused) > 50
    for outputs in answered:
        assert [text.decode() for text in outputs["text"]] == expected
    assert after["text"][0].decode() == expected[0]
    assert service._batcher.waiting == service._batcher._waiting_bytes == 0


def test_too_many_bytes_are_refused(versions, files):
    service = Service(versions, max_batch=8, max_waiting=10_000, max_bytes=3 * len(files[0]), max_lines=128)

    async def work():
        requests = [service.predict(service.find_signature(OCR), image_bytes(files[:1]), None) for _ in range(10)]
        return await asyncio.gather(*requests, return_exceptions=True)

    codes = [result.code if isinstance(result, RequestError) else grpc.StatusCode.OK for result in run(service, work)]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}


def test_outputs_do_not_depend_on_what_else_is_in_the_batch(versions, files):
    service = Service(versions, max_batch=32, max_waiting=256, max_bytes=2**24, max_lines=128)
    parts = [files[:1], files[1:8], [b"junk"], files[8:12], []]

    async def work():
        batched = await asyncio.gather(
            *(service.predict(service.find_signature(DETAILED), image_bytes(part), None) for part in parts)
        )
        return batched, [await service.predict(service.find_signature(DETAILED), image_bytes(part), None) for part in parts]

    for batched, alone in zip(*run(service, work), strict=True):
        assert batched.keys() == alone.keys()
        for name, value in batched.items():
            assert value.shape == alone[name].shape, name
            if value.dtype == np.float32:
                np.testing.assert_allclose(value, alone[name], atol=1e-3)
            else:
                np.testing.assert_array_equal(value, alone[name])


def test_deadlines_and_shutdown_refuse_a_request_and_skip_its_lines(versions, files):
    service = Service(versions, max_batch=8, max_waiting=256, max_bytes=2**24, max_lines=128)

    async def work():
        late = [service.predict(service.find_signature(OCR), image_bytes(files[:100]), 0.001) for _ in range(2)]
        results = await asyncio.gather(*late, return_exceptions=True)
        service.draining = True
        results += await asyncio.gather(
            service.predict(service.find_signature(OCR), image_bytes(files[:1]), None), return_exceptions=True
        )
        await asyncio.sleep(0.1)
        return results

    assert [result.code for result in run(service, work)] == [
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    ]


def test_an_array_of_another_type_is_refused(versions):
    service = Service(versions, max_batch=8, max_waiting=256, max_bytes=2**24, max_lines=128)
    inputs = {"pixels": np.zeros([1, 32, 10], np.int64), "width": np.ones(1, np.int32)}
    with pytest.raises(RequestError, match="pixels: int64 is not uint8") as caught:
        run(service, lambda: service.predict(service.find_signature(ModelRequest("ocr", signature="lines")), inputs, None))
    assert caught.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_a_failure_while_reading_is_an_internal_error(versions):
    service = Service(versions, max_batch=8, max_waiting=256, max_bytes=2**24, max_lines=128)
    # As if a new version took other heights than the one that the request was checked against.
    inputs = {"pixels": np.zeros([1, 31, 10], np.uint8), "width": np.ones(1, np.int32)}
    with pytest.raises(RequestError) as caught:
        run(service, lambda: service.predict(service.find_signature(ModelRequest("ocr", signature="lines")), inputs, None))
    assert caught.value.code == grpc.StatusCode.INTERNAL
