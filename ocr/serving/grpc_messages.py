"""The messages of gRPC's standard services: those of grpc-proto's `health.proto` and `reflection.proto`.

Described here because the packages that have them, grpcio-health-checking and grpcio-reflection, need a newer protobuf than
Apache Beam allows, and lack the method List and version 1 of reflection.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

HEALTH = "grpc.health.v1"
REFLECTION = ("grpc.reflection.v1", "grpc.reflection.v1alpha")  # alike but for their names

# In the text format of descriptor.proto's FileDescriptorProto, with shorter names, see _SHORT.
_HEALTH = """
  name: "grpc/health/v1/health.proto"
  service {
    name: "Health"
    method { name: "Check" input_type: "HealthCheckRequest" output_type: "HealthCheckResponse" }
    method { name: "List" input_type: "HealthListRequest" output_type: "HealthListResponse" }
    method { name: "Watch" input_type: "HealthCheckRequest" output_type: "HealthCheckResponse" server_streaming: true }
  }
  message_type { name: "HealthCheckRequest" field { name: "service" number: 1 ONE_STRING } }
  message_type {
    name: "HealthCheckResponse"
    field { name: "status" number: 1 label: LABEL_OPTIONAL type: TYPE_ENUM type_name: "HealthCheckResponse.ServingStatus" }
    enum_type {
      name: "ServingStatus"
      value { name: "UNKNOWN" number: 0 }
      value { name: "SERVING" number: 1 }
      value { name: "NOT_SERVING" number: 2 }
      value { name: "SERVICE_UNKNOWN" number: 3 }
    }
  }
  message_type { name: "HealthListRequest" }
  message_type {
    name: "HealthListResponse"
    field { name: "statuses" number: 1 MANY type_name: "HealthListResponse.StatusesEntry" }
    nested_type {
      name: "StatusesEntry"
      options { map_entry: true }
      field { name: "key" number: 1 ONE_STRING }
      field { name: "value" number: 2 ONE type_name: "HealthCheckResponse" }
    }
  }
"""
_REFLECTION = """
  name: "PATH/reflection.proto"
  service {
    name: "ServerReflection"
    method {
      name: "ServerReflectionInfo" client_streaming: true server_streaming: true
      input_type: "ServerReflectionRequest" output_type: "ServerReflectionResponse"
    }
  }
  message_type {
    name: "ServerReflectionRequest"
    oneof_decl { name: "message_request" }
    field { name: "host" number: 1 ONE_STRING }
    field { name: "file_by_filename" number: 3 oneof_index: 0 ONE_STRING }
    field { name: "file_containing_symbol" number: 4 oneof_index: 0 ONE_STRING }
    field { name: "file_containing_extension" number: 5 oneof_index: 0 ONE type_name: "ExtensionRequest" }
    field { name: "all_extension_numbers_of_type" number: 6 oneof_index: 0 ONE_STRING }
    field { name: "list_services" number: 7 oneof_index: 0 ONE_STRING }
  }
  message_type {
    name: "ExtensionRequest"
    field { name: "containing_type" number: 1 ONE_STRING }
    field { name: "extension_number" number: 2 label: LABEL_OPTIONAL type: TYPE_INT32 }
  }
  message_type {
    name: "ServerReflectionResponse"
    oneof_decl { name: "message_response" }
    field { name: "valid_host" number: 1 ONE_STRING }
    field { name: "original_request" number: 2 ONE type_name: "ServerReflectionRequest" }
    field { name: "file_descriptor_response" number: 4 oneof_index: 0 ONE type_name: "FileDescriptorResponse" }
    field { name: "all_extension_numbers_response" number: 5 oneof_index: 0 ONE type_name: "ExtensionNumberResponse" }
    field { name: "list_services_response" number: 6 oneof_index: 0 ONE type_name: "ListServiceResponse" }
    field { name: "error_response" number: 7 oneof_index: 0 ONE type_name: "ErrorResponse" }
  }
  message_type {
    name: "FileDescriptorResponse"
    field { name: "file_descriptor_proto" number: 1 label: LABEL_REPEATED type: TYPE_BYTES }
  }
  message_type {
    name: "ExtensionNumberResponse"
    field { name: "base_type_name" number: 1 ONE_STRING }
    field { name: "extension_number" number: 2 label: LABEL_REPEATED type: TYPE_INT32 }
  }
  message_type { name: "ListServiceResponse" field { name: "service" number: 1 MANY type_name: "ServiceResponse" } }
  message_type { name: "ServiceResponse" field { name: "name" number: 1 ONE_STRING } }
  message_type {
    name: "ErrorResponse"
    field { name: "error_code" number: 1 label: LABEL_OPTIONAL type: TYPE_INT32 }
    field { name: "error_message" number: 2 ONE_STRING }
  }
"""
_SHORT = {
    "ONE_STRING": "label: LABEL_OPTIONAL type: TYPE_STRING",
    "ONE": "label: LABEL_OPTIONAL type: TYPE_MESSAGE",
    "MANY": "label: LABEL_REPEATED type: TYPE_MESSAGE",
}


def _add_file(pool: descriptor_pool.DescriptorPool, package: str, text: str) -> None:
    for short, long in _SHORT.items():
        text = text.replace(f" {short} ", f" {long} ")
    text = text.replace("PATH", package.replace(".", "/"))
    file = text_format.Parse(text, descriptor_pb2.FileDescriptorProto(package=package, syntax="proto3"))
    pool.AddSerializedFile(file.SerializeToString())


POOL = descriptor_pool.DescriptorPool()  # not protobuf's own, in which other packages may describe the same messages
_add_file(POOL, HEALTH, _HEALTH)
for _package in REFLECTION:
    _add_file(POOL, _package, _REFLECTION)


def message_class(package: str, name: str) -> Any:
    """Returns the class of a message."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(f"{package}.{name}"))
