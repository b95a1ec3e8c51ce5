"""gRPC's standard services, asked as grpc_health_probe and grpcurl ask."""

import threading

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

from ocr.serving.grpc_messages import message_class

SERVICES = ["tensorflow.serving.PredictionService", "tensorflow.serving.ModelService"]
SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"  # field 1, status


def check_request(name: str) -> bytes:
    return bytes([10, len(name), *name.encode()]) if name else b""  # field 1, service


def test_health_is_told_by_name_and_watched_until_shutdown(serve_in_thread, small_exports):
    with serve_in_thread(small_exports, model_name="lines") as server, grpc.insecure_channel(server.grpc) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        for name in ("", "lines", *SERVICES):
            assert check(check_request(name)) == SERVING, name
        with pytest.raises(grpc.RpcError, match="'other' is not one of lines, tensorflow") as caught:
            check(check_request("other"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        listed = message_class("grpc.health.v1", "HealthListResponse")()
        listed.ParseFromString(channel.unary_unary("/grpc.health.v1.Health/List")(b""))
        assert {name: value.status for name, value in listed.statuses.items()} == dict.fromkeys(["", "lines", *SERVICES], 1)
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watches = [watch(check_request(name)) for name in ("", "lines", "other")]
        assert [next(each) for each in watches] == [SERVING, SERVING, SERVICE_UNKNOWN]
        server.stop.set()
        assert [list(each) for each in watches] == [[NOT_SERVING], [NOT_SERVING], [SERVICE_UNKNOWN]]


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
def test_services_are_listed_and_described(server, package: str):
    requests, responses = (message_class(package, f"ServerReflection{kind}") for kind in ("Request", "Response"))

    with grpc.insecure_channel(server.grpc) as channel:
        info = f"/{package}.ServerReflection/ServerReflectionInfo"
        call = channel.stream_stream(info, requests.SerializeToString, responses.FromString)

        def ask(**request: str):
            (response,) = call(iter([requests(**request)]))
            return response

        listed = {each.name for each in ask(list_services="").list_services_response.service}
        reflection = {f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha")}
        assert listed == {*SERVICES, "grpc.health.v1.Health"} | reflection
        for name in listed:
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(file)
                for file in ask(file_containing_symbol=name).file_descriptor_response.file_descriptor_proto
            ]
            pool, added = descriptor_pool.DescriptorPool(), set()
            while ready := [file for file in files if file.name not in added and added.issuperset(file.dependency)]:
                added |= {file.name for file in ready}
                for file in ready:
                    pool.Add(file)
            assert pool.FindServiceByName(name).methods, name
            assert ask(file_by_filename=files[0].name).file_descriptor_response.file_descriptor_proto[0]
        assert ask(file_containing_symbol="none").error_response.error_code == 5
        assert ask(all_extension_numbers_of_type="none").error_response.error_code == 12


def test_open_calls_are_bounded_and_hold_up_no_shutdown(serve_in_thread, small_exports):
    with serve_in_thread(small_exports, max_connections=3) as server, grpc.insecure_channel(server.grpc) as channel:
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")
        watches = [watch(b"") for _ in range(3)]
        assert [next(each) for each in watches] == [SERVING] * 3
        with pytest.raises(grpc.RpcError) as caught:
            next(watch(b""))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        answered = threading.Event()
        info = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        call = info(iter(answered.wait, True))  # open, without a request
        server.stop.set()
        assert list(call) == []
        assert [list(each) for each in watches] == [[NOT_SERVING]] * 3
        answered.set()
