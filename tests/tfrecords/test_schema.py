import tensorflow as tf
from ten_records import record

from tfrecords import schema


def test_a_record_survives_a_round_trip():
    # A name that is not UTF-8, and the fields that only rendered lines have.
    original = record(3)._replace(filename="b\udcffd.png", font="Song 宋", middles=(3, 140, 300), orientation=6)
    parsed = schema.parse(tf.constant([original.serialize()]), middles=True)
    assert parsed.pop("middles").to_list() == [[3, 140, 300]]
    assert {key: value.numpy()[0] for key, value in parsed.items()} == {
        "encoded": original.encoded,
        "format": b"png",
        "height": 32,
        "width": 283,
        "channels": 1,
        "text": "第3行".encode(),
        "filename": b"b\xffd.png",
        "font": "Song 宋".encode(),
        "orientation": 6,
    }
    plain = schema.parse(tf.constant([record(3).serialize()]), middles=True)
    assert (plain["font"].numpy()[0], plain["middles"].to_list()) == (b"", [[]])


def test_keys_are_those_of_tensorflows_ocr_data_sets():
    example = tf.train.Example.FromString(record(1).serialize())
    keys = ("channels", "encoded", "filename", "format", "height", "text", "width")
    assert sorted(example.features.feature) == [f"image/{key}" for key in keys]
