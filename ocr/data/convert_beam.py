"""Packs images and labels into records on an engine of many machines, Apache Beam: see `convert` for one machine."""

import math
import pathlib
from collections.abc import Iterable, Iterator

import apache_beam as beam
import tensorflow as tf

from ocr import beam as engine
from ocr.config import ConvertConfig
from ocr.data import candidates, convert, labels
from ocr.data.candidates import Rejected
from tfrecords import files, manifest, writer
from tfrecords.errors import InputError
from tfrecords.shards import describe

_SAMPLED = 4  # pieces of the labels file, to foresee how large the records are


def run(config: ConvertConfig) -> dict:
    """Packs a split as `convert.convert` does; with the same number of shards they are the same to the byte.

    The machines must see `images`, `labels` and `output` under the names given, and have this package installed.

    Raises:
      InputError: as there, or no runner is named.
    """
    pipeline = engine.pipeline(config.beam_options)
    found, charset = convert.survey(config)
    num_shards = config.num_shards or _num_shards(config, found)
    with convert.open_split(config, found, charset, num_shards) as split:
        if split.position:
            raise InputError("--resume: the run that was ended was one of --engine=local; go on with that, or without --resume")
        if not split.manifest:
            paths = [str(split.path(index)) for index in range(num_shards)]
            _run(pipeline, config, found, paths)
            seen = 0
            for path in map(pathlib.Path, paths):
                result = files.read_json(path.with_suffix(".json"))
                if config.strict and result["first_reject"]:
                    number, reason, detail = result["first_reject"]
                    raise InputError(f"{config.labels}: line {number}: {reason}: {detail}")
                split.adopt(manifest.read_shard(result["shard"]), result["counts"], result["rejects"])
                seen += result["lines"]
            if seen != found.count:
                raise InputError(f"{config.labels}: had {found.count} lines, then {seen}; it must not change while it is read")
            convert.finish(config, found, charset, split)
    return convert.summary(config, split)


def _num_shards(config: ConvertConfig, found: labels.Survey) -> int:
    """Foresees how many shards of 128 MiB there will be, from the first lines."""
    reader = candidates.LineReader(config, found.label_format)
    rows = [row for piece in found.pieces[:_SAMPLED] for row in reader.read(piece)]
    packed = convert.checked(config, rows)
    size = sum(len(row[2]) for row in packed if not isinstance(row, Rejected)) / len(rows)
    return min(math.ceil(max(size * found.count, 1) / writer.SHARD_BYTES), found.count)


def _run(pipeline: beam.Pipeline, config: ConvertConfig, found: labels.Survey, paths: list[str]) -> None:
    with pipeline:
        rows = (
            pipeline
            | "Pieces" >> beam.Create(found.pieces)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_Read(config, found, len(paths)))
        )
        # Of the names that come more than once, the first line that can be used.
        first = rows | "Repeated" >> beam.FlatMap(_repeated, found.repeated) | "First" >> beam.CombinePerKey(min)
        shards = rows | "Shards" >> beam.GroupByKey()
        _ = shards | "Write" >> beam.Map(_write, paths, beam.pvalue.AsDict(first))


class _Read(beam.DoFn):
    """Makes rows of pieces of the labels file: the number of the shard, and the row as it is to be written."""

    def __init__(self, config: ConvertConfig, found: labels.Survey, num_shards: int):
        self._config, self._label_format = config, found.label_format
        self._count, self._num_shards = found.count, num_shards

    def setup(self) -> None:
        self._line_reader = candidates.LineReader(self._config, self._label_format)

    def process(self, piece: labels.Piece) -> Iterator[tuple[int, tuple]]:
        for row in convert.checked(self._config, self._line_reader.read(labels.Piece(*piece))):
            yield (row[0] - 1) * self._num_shards // self._count, (isinstance(row, Rejected), *row)


def _repeated(row: tuple[int, tuple], names: frozenset[str]) -> Iterator[tuple[str, int]]:
    _, (rejected, number, name, *_) = row
    if not rejected and name in names:
        yield name, number


def _write(shard: tuple[int, Iterable[tuple]], paths: list[str], first: dict[str, int]) -> None:
    """Writes a shard, and beside it what is to be known of it. It may be done again after a failure."""
    index, rows = shard
    path = pathlib.Path(paths[index])
    tally, rejects, first_reject, lines = manifest.Tally(), [], None, 0
    with tf.io.TFRecordWriter(str(path)) as out:
        for rejected, *plain in sorted(rows, key=lambda row: row[1]):
            number, name, *rest = plain
            if rejected or first.get(name, number) < number:
                row = Rejected(*plain) if first.get(name, number) >= number else convert.duplicate(number, name)
                rejects.append(convert.reject_row(row))
                tally.rejects[row.reason] += 1
                first_reject = first_reject or (number, row.reason, row.detail)
            else:
                serialized, text, width = rest
                out.write(serialized)
                tally.add(text, width)
            lines += 1
    files.sync_file(path)
    result = {"shard": vars(describe(path, path.name)), "counts": tally.fields(), "rejects": rejects, "lines": lines}
    files.write_json(path.with_suffix(".json"), {**result, "first_reject": first_reject})
