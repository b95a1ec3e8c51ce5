"""A trained network with its alphabet: lines or image files in, texts out. It is what is evaluated and exported."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from ocr import ctc
from ocr.charset import Charset
from ocr.images import header, preprocess
from ocr.images.network_input import FrameSize
from ocr.model import constrain, decode, edits, frozen, networks, score, template

REFUSED = 4  # a status beside those of `ocr.images.preprocess`: what is asked of an image breaks a rule
_RULED_OUT = -1e9  # logit of a class that is not allowed; finite, since a beam takes differences
_ALIKE = 320  # pixels of width up to which lines share a group; a wider group has at most twice its narrowest width
_AT_ONCE = 32_768  # pixels of width of all lines in a group


class Group(NamedTuple):
    """Lines of similar width.

    Attributes:
      rows: int32[G], their places in the batch.
      width: int32[G], in pixels.
      logits: float32[G, T, C].
      frames: int32[G].
      status: int32[G], a code of `ocr.images.preprocess`.
      is_read: bool[G], whether that is READ.
    """

    rows: tf.Tensor
    width: tf.Tensor
    logits: tf.Tensor
    frames: tf.Tensor
    status: tf.Tensor
    is_read: tf.Tensor


class Recogniser:
    """Reads lines.

    Args:
      model: network built by `networks.build`.
      charset: alphabet of the model's classes.
      decoder: a key of `decode.DECODERS`.
      fixed: whether to freeze the current weights, for an export; otherwise each call uses the weights at the time.

    Attributes:
      charset: as given.
      frame: size of the network's frames.
      logits: runs the network on pixels and widths: see `networks.logits`.
    """

    def __init__(self, model: keras.Model, charset: Charset, decoder: str = "greedy", fixed: bool = False):
        self.charset = charset
        self._decode = decode.DECODERS[decoder]
        self.frame = networks.network(model.name).frame
        self.logits: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = (
            frozen.network(model) if fixed else functools.partial(networks.logits, model, training=False)
        )

    def texts(self, logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes logits: see `decode`.

        Returns:
          The texts string[B], and their confidences float32[B], each the probability of that text.
        """
        decoded = self._decode(logits, frames)
        return self._joined(decoded.ids, decoded.lengths), decoded.confidence

    def read_files(self, image_bytes: tf.Tensor, detailed: bool = False) -> dict[str, tf.Tensor]:
        """Reads image files.

        Args:
          image_bytes: string[B], contents of PNG, JPEG, GIF or BMP files; B may be 0.
          detailed: whether to return each character's confidence and position too.

        Returns:
          `text` string[B], `confidence` float32[B] from 0 to 1, and `status` int32[B], a code of `ocr.images.preprocess`; a
          file that was not read has an empty text and confidence 0. If detailed, with N the length of the longest text:
          `chars` string[B, N], padded with empty strings; and, padded with 0, `char_confidence` float32[B, N] from 0 to 1,
          and `char_start` and `char_end` int32[B, N], a character's columns in pixels of the input image as it is shown, the
          end exclusive.
        """
        pixels, width, status, given = preprocess.read_rows(_not_empty(image_bytes), self.frame.height)
        outputs = self._read(pixels, width, status, given, detailed)
        return {name: value[: tf.size(image_bytes)] for name, value in outputs.items()}

    def score_files(self, image_bytes: tf.Tensor, text: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tells how probable given texts are. The network runs once an image, however many texts there are.

        Probabilities are those that confidences are: of the same logits, calibrated if the export is.

        Args:
          image_bytes: string[B], as in `read_files`.
          text: string[B, K], the texts of each image, in UTF-8. An empty one is a text like any other.
          count: int32[B], how many of the K are given; the others are ignored.

        Returns:
          With N the length of the longest text that is given:
          `log_probability` float32[B, K], the natural logarithm of the probability of each text, summed over all alignments;
          minus infinity for a text with a character outside the alphabet or too long for the image, one that is not given,
          and for an image that was not read.
          `best` int32[B], the number of the most probable text, from 0; -1 if none is possible.
          `agreement` float32[B, K, N], how well each character agrees with the image: see `score.score`.
          `missing` string[B], the characters that the image shows and its first text lacks: those that must be inserted into
          that text to get the text read, along with the fewest other edits (see `edits.inserted`).
          `status` int32[B], as in `read_files`, or REFUSED.
          `error` string[B], which rule a refused row breaks (see `score.refusals`); empty for all others.
        """
        rows = tf.size(image_bytes)
        pixels, width, status, _ = preprocess.read_rows(_not_empty(image_bytes), self.frame.height)
        text, count = _not_empty(text), _not_empty(count)
        error = score.refusals(text, count)
        status = tf.where(error != "", REFUSED, status)
        count = tf.where(status == preprocess.READ, count, 0)
        text = tf.where(tf.sequence_mask(count, tf.shape(text)[1]), text, "")
        ids = self.charset.encode_graph(tf.reshape(text, [-1]))
        lengths = tf.reshape(tf.cast(ids.row_lengths(), tf.int32), tf.shape(text))
        labels = ids.to_tensor(-1)
        labels = tf.reshape(labels, tf.concat([tf.shape(text), tf.shape(labels)[1:]], axis=0))  # [B, K, N]
        first = tf.strings.unicode_split(tf.pad(text, [[0, 0], [0, 1]])[:, 0], "UTF-8")

        def answer(group: Group) -> list[tf.Tensor]:
            counts = tf.where(group.is_read, tf.gather(count, group.rows), 0)

            def score_one(line: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                row, number = group.rows[line], counts[line]
                own = lengths[row, :number]
                longest = tf.reduce_max(tf.pad(own, [[0, 1]]))
                logits = group.logits[line, : group.frames[line]]
                scores = score.score(logits, labels[row, :number, :longest], own)
                _, texts, characters = tf.unstack(tf.shape(labels))
                log_probability = tf.pad(scores.log_probability, [[0, texts - number]], constant_values=-float("inf"))
                return log_probability, tf.pad(scores.agreement, [[0, texts - number], [0, characters - longest]])

            kinds = tf.TensorSpec([None], tf.float32), tf.TensorSpec([None, None], tf.float32)
            # One by one, since each may need much memory.
            scores = tf.map_fn(score_one, tf.range(tf.size(counts)), parallel_iterations=1, fn_output_signature=kinds)
            decoded = self._decode(group.logits, group.frames)
            characters = self.charset.decode_graph(decoded.ids, decoded.lengths)
            given = tf.gather(first, group.rows)
            given_lengths = tf.cast(given.row_lengths(), tf.int32)
            inserted = edits.inserted(characters, decoded.lengths, given.to_tensor(""), given_lengths)
            missing = tf.strings.reduce_join(tf.where(inserted & (counts > 0)[:, tf.newaxis], characters, ""), axis=1)
            return [missing, group.status, *scores]

        (missing, codes, log_probability, agreement), place = self._in_groups(
            pixels, width, status, answer, [tf.string, tf.int32, tf.float32, tf.float32], ranks=(2, 3)
        )
        padded = tf.pad(log_probability, [[0, 0], [0, 1]], constant_values=-float("inf"))  # K may be 0
        best = tf.where(tf.reduce_max(padded, axis=1) > -float("inf"), tf.argmax(padded, axis=1, output_type=tf.int32), -1)
        outputs = {
            "log_probability": log_probability,
            "best": best,
            "agreement": agreement,
            "missing": missing,
            "status": codes,
        }
        outputs = {name: tf.gather(value, place)[:rows] for name, value in outputs.items()}
        return outputs | {"error": error[:rows]}

    def read_constrained(self, image_bytes: tf.Tensor, allowed: tf.Tensor, pattern: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads image files of which something is known.

        Without a pattern, what the decoder finds among the allowed characters is read; with one, the text of the most probable
        path through it.

        Args:
          image_bytes: string[B], as in `read_files`.
          allowed: string[B], the characters that may occur, in UTF-8; empty for all.
          pattern: string[B], which texts are possible: see `template`; empty for all.

        Returns:
          `text` string[B]; empty, with confidence 0, if no text of these characters fits the pattern and the image.
          `confidence` float32[B], the probability of the text, given that all characters are allowed ones and that it fits
          the pattern.
          `unconstrained_confidence` float32[B], the probability of the same text without that knowledge.
          `status` int32[B], as in `read_files`, or REFUSED.
          `error` string[B], which rule a refused row breaks; empty for all others.
        """
        pixels, width, status, _ = preprocess.read_rows(_not_empty(image_bytes), self.frame.height)
        allowed, pattern = _not_empty(allowed), _not_empty(pattern)

        def answer(group: Group) -> list[tf.Tensor]:
            mask, error = constrain.allowed_classes(tf.gather(allowed, group.rows), self.charset)
            chains, no_pattern = template.parse(tf.gather(pattern, group.rows), self.charset)
            error = tf.where(error != "", error, no_pattern)
            with_blank = tf.pad(mask, [[0, 0], [0, 1]], constant_values=True)[:, tf.newaxis]
            decoded = self._decode(tf.where(with_blank, group.logits, _RULED_OUT), group.frames)
            free = constrain.Reading(decoded.ids, decoded.lengths, decoded.confidence)
            fitting = lambda: constrain.read(group.logits, group.frames, mask, chains)  # noqa: E731
            has_pattern = tf.reduce_any(chains.row == tf.range(tf.size(group.rows))[:, tf.newaxis], axis=1)
            reading = tf.cond(tf.reduce_any(has_pattern), lambda: constrain.choose(has_pattern, fitting(), free), lambda: free)
            unconstrained = ctc.probability(group.logits, group.frames, reading.ids, reading.lengths)
            codes = tf.where(error != "", REFUSED, group.status)
            is_read = codes == preprocess.READ
            text = self._joined(reading.ids, tf.where(is_read, reading.lengths, 0))
            possible = is_read & (~has_pattern | (reading.confidence > 0))
            confidences = (tf.where(possible, value, 0.0) for value in (reading.confidence, unconstrained))
            return [text, *confidences, codes, error]

        names = ("text", "confidence", "unconstrained_confidence", "status", "error")
        kinds = [tf.string, tf.float32, tf.float32, tf.int32, tf.string]
        outputs, place = self._in_groups(pixels, width, status, answer, kinds)
        return {name: tf.gather(value, place)[: tf.size(image_bytes)] for name, value in zip(names, outputs, strict=True)}

    def read_lines(self, pixels: tf.Tensor, width: tf.Tensor) -> dict[str, tf.Tensor]:
        """Reads preprocessed lines, as training and evaluation see them.

        Args:
          pixels: uint8[B, H, W], with any values beyond a line's width; H is the height of the network's lines, B may be 0.
          width: int32[B], in pixels.

        Returns:
          As `read_files`. A line whose width is not 1 to W is undecodable.
        """
        columns, max_width = tf.shape(pixels)[2], header.max_width(self.frame.height)
        extra = tf.cast(tf.size(width) == 0, tf.int32)
        rows = tf.pad(pixels[:, :, :max_width], [[0, extra], [0, 0], [0, tf.cast(columns == 0, tf.int32)]])
        padded = tf.pad(width, [[0, extra]])
        status = tf.where(padded > max_width, preprocess.TOO_LARGE, preprocess.READ)
        status = tf.where((padded < 1) | (padded > columns), preprocess.UNDECODABLE, status)
        own = tf.where(status == preprocess.READ, padded, 1)
        outputs = self._read(rows, own, status, own, detailed=False)
        return {name: value[: tf.size(width)] for name, value in outputs.items()}

    def _read(
        self, pixels: tf.Tensor, width: tf.Tensor, status: tf.Tensor, given: tf.Tensor, detailed: bool
    ) -> dict[str, tf.Tensor]:
        def answer(group: Group) -> list[tf.Tensor]:
            decoded = self._decode(group.logits, group.frames)
            lengths = tf.where(group.is_read, decoded.lengths, 0)
            text = self._joined(decoded.ids, lengths)
            outputs = [text, tf.where(group.is_read, decoded.confidence, 0.0), group.status]
            if detailed:
                start, stop = _places(decoded, group.width, self.frame)
                characters = (self.charset.decode_graph(decoded.ids, lengths), decoded.char_confidence, start, stop)
                outputs += [lengths, *(tf.RaggedTensor.from_tensor(value, lengths).flat_values for value in characters)]
            return outputs

        kinds = [tf.string, tf.float32, tf.int32] + [tf.int32, tf.string, tf.float32, tf.int32, tf.int32] * detailed
        (text, confidence, codes, *rest), place = self._in_groups(pixels, width, status, answer, kinds)
        outputs = {
            "text": tf.gather(text, place),
            "confidence": tf.gather(confidence, place),
            "status": tf.gather(codes, place),
        }
        if detailed:
            lengths, *flat = rest
            rows = [tf.gather(tf.RaggedTensor.from_row_lengths(v, lengths, validate=False), place).to_tensor() for v in flat]
            outputs |= dict(zip(("chars", "char_confidence", "char_start", "char_end"), rows, strict=True))
            for name in ("char_start", "char_end"):
                outputs[name] = outputs[name] * given[:, tf.newaxis] // width[:, tf.newaxis]
        return outputs

    def _in_groups(
        self,
        pixels: tf.Tensor,
        width: tf.Tensor,
        status: tf.Tensor,
        answer: Callable[[Group], list[tf.Tensor]],
        kinds: list[tf.DType],
        ranks: tuple[int, ...] = (),
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs the network on lines in groups of similar width, so that a wide line does not widen all others.

        Args:
          pixels: uint8[B, H, W]; B is at least 1.
          width: int32[B], in pixels.
          status: int32[B]; what is not READ gets through, too.
          answer: returns what is wanted of a group, with first dimensions that add up over all groups.
          kinds: types of these outputs.
          ranks: ranks of the last outputs; the others have rank 1.

        Returns:
          The outputs, those of all groups in a row; and the place there of each line, int32[B].
        """
        order = tf.argsort(width, stable=True)
        ordered = tf.gather(width, order)
        statuses = tf.gather(status, order)

        def group(begin: tf.Tensor, *done: tf.TensorArray) -> tuple:
            alike = tf.searchsorted(ordered, tf.maximum(ordered[begin : begin + 1] * 2, _ALIKE), side="right")[0]
            end = tf.minimum(alike, begin + tf.maximum(_AT_ONCE // ordered[alike - 1], 1))
            own = ordered[begin:end]
            lines = tf.gather(pixels, order[begin:end])[:, :, : own[-1]]
            codes = tf.where(
                statuses[begin:end] != preprocess.READ, statuses[begin:end], preprocess.contrast_status(lines, own)
            )
            outputs = answer(Group(order[begin:end], own, *self.logits(lines, own), codes, codes == preprocess.READ))
            return end, *(array.write(array.size(), value) for array, value in zip(done, outputs, strict=True))

        shapes = [[None]] * (len(kinds) - len(ranks)) + [[None] * rank for rank in ranks]
        done = [
            tf.TensorArray(kind, 0, dynamic_size=True, infer_shape=False, element_shape=shape)
            for kind, shape in zip(kinds, shapes, strict=True)
        ]
        _, *arrays = tf.while_loop(lambda begin, *_: begin < tf.size(order), group, (0, *done))
        return [array.concat() for array in arrays], tf.math.invert_permutation(order)

    def _joined(self, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        return tf.strings.reduce_join(self.charset.decode_graph(ids, lengths), axis=1)


def _not_empty(batch: tf.Tensor) -> tf.Tensor:
    """Returns a batch with a row of nothing if it is empty.

    Neither a data set nor a convolution gives the right shapes for an empty batch; the row is dropped from the outputs.
    """
    extra = tf.cast(tf.shape(batch)[0] == 0, tf.int32)
    return tf.pad(batch, [[0, extra], *[[0, 0]] * (batch.shape.rank - 1)])


def _places(decoded: decode.Decoded, width: tf.Tensor, frame: FrameSize) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first column of each character and the one after its last, int32[B, N] each.

    CTC only tells in which frames a character is recognised. So each is widened by half of the gap to its neighbour, or the
    whole gap to the line's end, but by no more than half a line's height.
    """
    start, end = decoded.first * frame.width, tf.minimum((decoded.last + 1) * frame.width, width[:, tf.newaxis])
    reach = frame.height // 2
    number = tf.range(tf.shape(start)[1])
    before = tf.where(number == 0, start, (start - tf.roll(end, 1, axis=1)) // 2)
    behind = (tf.roll(start, -1, axis=1) - end) - (tf.roll(start, -1, axis=1) - end) // 2
    behind = tf.where(number == decoded.lengths[:, tf.newaxis] - 1, width[:, tf.newaxis] - end, behind)
    return start - tf.minimum(before, reach), end + tf.minimum(behind, reach)
