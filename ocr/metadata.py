"""What a served model says of itself."""

import functools

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import get_model_metadata_pb2

from ocr.versions import Version


def signatures(version: Version) -> get_model_metadata_pb2.SignatureDefMap:
    """Returns a version's signatures as its SavedModel has them."""
    return _of(str(version.folder / "saved_model.pb"))


@functools.lru_cache(maxsize=2)
def _of(path: str) -> get_model_metadata_pb2.SignatureDefMap:
    with open(path, "rb") as file:
        model = saved_model_pb2.SavedModel.FromString(file.read())
    return get_model_metadata_pb2.SignatureDefMap(signature_def=dict(model.meta_graphs[0].signature_def))
