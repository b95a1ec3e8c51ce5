import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from ocr.serving import warmup


def test_warm_up_requests_are_what_tensorflow_serving_understands(tmp_path):
    path = tmp_path / warmup.NAME
    warmup.write(path, 32)
    logs = [prediction_log_pb2.PredictionLog.FromString(r) for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    requests = [log.predict_log.request for log in logs]
    assert {request.model_spec.signature_name for request in requests} == {
        *("serving_default", "detailed", "lines", "score", "constrained")
    }
    sizes = [tf.make_ndarray(r.inputs["image_bytes"]).shape for r in requests if "image_bytes" in r.inputs]
    assert sorted(sizes) == [(1,)] * 4 + [(32,)] * 2
    assert [signature for signature, _ in warmup.read(path)] == [request.model_spec.signature_name for request in requests]
