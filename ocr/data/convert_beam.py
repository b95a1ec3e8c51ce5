"""Packs images and labels into records with Apache Beam, on many machines; `convert` does it on one."""

import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import apache_beam as beam
import tensorflow as tf

from ocr import beam as engine
from ocr.data import convert, inputs, line_reader
from ocr.data.convert_config import ConvertConfig
from ocr.data.entries import ENTRIES
from ocr.data.line_index import Chunk, LabelsIndex
from ocr.data.line_reader import Rejected
from tfrecords import files, manifest, writer
from tfrecords.errors import InputError
from tfrecords.shards import describe

_SAMPLED = 4  # chunks of the labels file, to estimate the size of the records


def run(config: ConvertConfig) -> dict:
    """Packs a split as `convert.convert` does; with the same number of shards the result is byte-identical.

    All machines must see `images`, `labels` and `output` under the same paths, and have this package installed.

    Raises:
      InputError: as in `convert.convert`, or no runner is named.
    """
    pipeline = engine.pipeline(config.beam_options)
    with inputs.open_inputs(config) as (indexes, charset):
        index = indexes[config.split]
        if index.label_format == ENTRIES:
            raise InputError("--engine=beam: takes only a labels file, and no other --source")
    num_shards = config.num_shards or _num_shards(config, index)
    with convert.open_split(config, index, charset, num_shards) as split:
        if split.position:
            raise InputError("--resume: the interrupted run had --engine=local; resume with that, or drop --resume")
        if not split.manifest:
            paths = [str(split.path(shard)) for shard in range(num_shards)]
            _run(pipeline, config, index, paths)
            lines = 0
            for path in map(pathlib.Path, paths):
                result = files.read_json(path.with_suffix(".json"))
                if config.strict and result["first_reject"]:
                    number, reason, detail = result["first_reject"]
                    raise InputError(f"{config.labels}: line {number}: {reason}: {detail}")
                split.adopt(manifest.read_shard(result["shard"]), result["counts"], result["rejects"])
                lines += result["lines"]
            if lines != index.count:
                raise InputError(f"{config.labels}: had {index.count} lines, then {lines}; it must not change while it is read")
            convert.finish(config, index, charset, split)
    return convert.summary(config, split)


def _num_shards(config: ConvertConfig, index: LabelsIndex) -> int:
    """Estimates the number of shards of 128 MiB from the first lines."""
    reader = line_reader.LineReader(config, index.path, index.label_format)
    rows = [row for chunk in index.chunks[:_SAMPLED] for row in reader.read(chunk)]
    encoded = convert.encode_rows(config, rows)
    size = sum(len(row[2]) for row in encoded if not isinstance(row, Rejected)) / len(rows)
    return min(math.ceil(max(size * index.count, 1) / writer.SHARD_BYTES), index.count)


def _run(pipeline: beam.Pipeline, config: ConvertConfig, index: LabelsIndex, paths: list[str]) -> None:
    with pipeline:
        rows = (
            pipeline
            | "Chunks" >> beam.Create(index.chunks)
            | "Spread" >> beam.Reshuffle()
            | "Read" >> beam.ParDo(_ReadChunk(config, index, len(paths)))
        )
        # For each image that occurs more than once, the first usable line.
        first = rows | "Repeated" >> beam.FlatMap(_repeated, index.repeated) | "First" >> beam.CombinePerKey(min)
        shards = rows | "Shards" >> beam.GroupByKey()
        _ = shards | "Write" >> beam.Map(_write, paths, index.repeated, beam.pvalue.AsDict(first))


class _ReadChunk(beam.DoFn):
    """Turns chunks of the labels file into pairs: the number of the shard, and the row to be written."""

    def __init__(self, config: ConvertConfig, index: LabelsIndex, num_shards: int):
        self._config, self._path, self._label_format = config, index.path, index.label_format
        self._count, self._num_shards = index.count, num_shards

    def setup(self) -> None:
        """Is called by Beam once in each worker."""
        self._line_reader = line_reader.LineReader(self._config, self._path, self._label_format)

    def process(self, chunk: Chunk) -> Iterator[tuple[int, tuple]]:
        """Is called by Beam for each chunk."""
        for row in convert.encode_rows(self._config, self._line_reader.read(Chunk(*chunk))):
            yield (row[0] - 1) * self._num_shards // self._count, (isinstance(row, Rejected), *row)


def _repeated(row: tuple[int, tuple], repeated: Mapping[str, str]) -> Iterator[tuple[str, int]]:
    """Yields the image and the number of a usable line whose image occurs more than once."""
    _, (rejected, number, name, *_) = row
    if not rejected and name in repeated:
        yield repeated[name], number


def _write(shard: tuple[int, Iterable[tuple]], paths: list[str], repeated: Mapping[str, str], first: Mapping[str, int]) -> None:
    """Writes a shard, and a JSON file that describes it. Beam may call it again after a failure."""
    index, rows = shard
    path = pathlib.Path(paths[index])
    tally, rejects, first_reject, lines = manifest.Tally(), [], None, 0
    with tf.io.TFRecordWriter(str(path)) as out:
        for rejected, *fields in sorted(rows, key=lambda row: row[1]):
            number, name, *rest = fields
            is_duplicate = first.get(repeated.get(name, ""), number) < number
            if rejected or is_duplicate:
                row = convert.duplicate(number, name) if is_duplicate else Rejected(*fields)
                rejects.append(convert.reject_row(row))
                tally.rejects[row.reason] += 1
                first_reject = first_reject or (number, row.reason, row.detail)
            else:
                serialized, *counted = rest
                out.write(serialized)
                tally.add(*counted)
            lines += 1
    files.sync_file(path)
    result = {"shard": vars(describe(path, path.name)), "counts": tally.fields(), "rejects": rejects, "lines": lines}
    files.write_json(path.with_suffix(".json"), {**result, "first_reject": first_reject})
