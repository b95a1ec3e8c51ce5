"""A trained network with its alphabet: lines or image files in, texts out. It is what is evaluated and exported."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf

from ocr.charset import Charset
from ocr.images import header, preprocess
from ocr.images.network_input import FrameSize
from ocr.model import decode, frozen, networks, rereading, turning
from ocr.model.fusion import Fusion

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
      fusion: decodes with a language model, in place of `decoder`.
      turned_lines: whether to read doubtful lines of image files turned, too, and to take the most probable text.
      reread: whether to read doubtful lines of image files in other sizes, too, and to take the most probable text.

    Attributes:
      charset: as given.
      fusion: as given.
      frame: size of the network's frames.
      decode: from logits and frames to `decode.Decoded`.
      logits: runs the network on pixels and widths: see `networks.logits`.
      rows: turns image files into lines: see `preprocess.read_rows`.
      characters: from classes and lengths to characters: see `Charset.decode_graph`.
    """

    def __init__(
        self,
        model: keras.Model,
        charset: Charset,
        decoder: str = "greedy",
        fixed: bool = False,
        fusion: Fusion | None = None,
        turned_lines: bool = False,
        reread: bool = False,
    ):
        self.charset, self.fusion, self._turned_lines, self._reread = charset, fusion, turned_lines, reread
        self.decode: Callable[[tf.Tensor, tf.Tensor], decode.Decoded] = fusion.decode if fusion else decode.DECODERS[decoder]
        self.frame = networks.network(model.name).frame
        self.logits: Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]] = (
            frozen.network(model) if fixed else functools.partial(networks.logits, model, training=False)
        )
        self.rows: Callable[[tf.Tensor], tuple[tf.Tensor, ...]] = functools.partial(
            preprocess.read_rows, line_height=self.frame.height
        )
        self._rows_on_side = functools.partial(self.rows, on_side=True)
        self.characters: Callable[[tf.Tensor, tf.Tensor], tf.Tensor] = charset.decode_graph
        if fixed:  # what is exported has one copy of each, not one in each signature
            ids, lengths = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
            self.characters = tf.function(self.characters, [ids, lengths], autograph=False)
            if fusion:
                logits = tf.TensorSpec([None, None, charset.num_classes], tf.float32)
                self.decode = tf.function(self.decode, [logits, lengths], autograph=False)

    def texts(self, logits: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes logits: see `decode`.

        Returns:
          The texts string[B], and their confidences float32[B], each the probability of that text.
        """
        decoded = self.decode(logits, frames)
        return self.joined(decoded.ids, decoded.lengths), decoded.confidence

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
          If detailed, with a language model also `fused_score` float32[B], what it chooses the text by: see `fusion.Weights`;
          and with turned lines `turned` int32[B], by how many degrees the image was turned clockwise to read it: 0, 90, 180
          or 270. At 90 and 270 each character has all columns of the image. If lines are read again, `reread` int32[B], 1
          where the text is that of the line in another size, else 0.
        """
        rows = self._rows_on_side if self._turned_lines else self.rows
        outputs = self._read(*rows(not_empty(image_bytes)), detailed=detailed, reread=self._reread)
        return {name: value[: tf.size(image_bytes)] for name, value in outputs.items()}

    def read_lines(
        self, pixels: tf.Tensor, width: tf.Tensor, reread: bool = False, sharpness: tf.Tensor | None = None
    ) -> dict[str, tf.Tensor]:
        """Reads preprocessed lines, as training and evaluation see them; they are not turned.

        Args:
          pixels: uint8[B, H, W], with any values beyond a line's width; H is the height of the network's lines, B may be 0.
          width: int32[B], in pixels.
          reread: whether to read doubtful lines in other sizes, too.
          sharpness: float32 scalar, factor of the logits; None for 1.

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
        outputs = self._read(rows, own, status, own, reread=reread, sharpness=sharpness)
        return {name: value[: tf.size(width)] for name, value in outputs.items()}

    def _read(
        self,
        pixels: tf.Tensor,
        width: tf.Tensor,
        status: tf.Tensor,
        given: tf.Tensor,
        *side: tf.Tensor,
        detailed: bool = False,
        reread: bool = False,
        sharpness: tf.Tensor | None = None,
    ) -> dict[str, tf.Tensor]:
        """Reads lines that `preprocess.read_rows` has returned, with `side` in both ways."""

        def answer(group: Group) -> list[tf.Tensor]:
            logits = group.logits if sharpness is None else group.logits * sharpness
            decoded = self.decode(logits, group.frames)
            lengths = tf.where(group.is_read, decoded.lengths, 0)
            text = self.joined(decoded.ids, lengths)
            outputs = [text, tf.where(group.is_read, decoded.confidence, 0.0), group.status]
            if detailed:
                start, stop = _places(decoded, group.width, self.frame)
                characters = (self.characters(decoded.ids, lengths), decoded.char_confidence, start, stop)
                outputs += [group.width, lengths]
                outputs += [tf.RaggedTensor.from_tensor(value, lengths).flat_values for value in characters]
                own = decoded._replace(lengths=lengths, confidence=outputs[1])
                outputs += [self.fusion.score(own)] if self.fusion else []
            return outputs

        kinds = [tf.string, tf.float32, tf.int32] + [tf.int32, tf.int32, tf.string, tf.float32, tf.int32, tf.int32] * detailed
        kinds += [tf.float32] if detailed and self.fusion else []
        read = functools.partial(self.in_groups, answer=answer, kinds=kinds)
        flat, place = read(pixels, width, status)
        turned = tf.zeros_like(place)
        if side:
            flat, place, turned = turning.best(read, flat, place, turning.Lines(pixels, width), turning.Lines(*side))
        if reread:
            flat, place = rereading.best(read, flat, place, pixels, width, turned)
        (text, confidence, codes, *rest) = flat
        outputs = {
            "text": tf.gather(text, place),
            "confidence": tf.gather(confidence, place),
            "status": tf.gather(codes, place),
        }
        if detailed:
            if self.fusion:
                *rest, scores = rest
                outputs["fused_score"] = tf.gather(scores, place)
            widths, lengths, *values = rest
            as_read = tf.gather(widths, place)
            rows = [tf.gather(tf.RaggedTensor.from_row_lengths(v, lengths, validate=False), place).to_tensor() for v in values]
            outputs |= dict(zip(("chars", "char_confidence", "char_start", "char_end"), rows, strict=True))
            for name in ("char_start", "char_end"):
                outputs[name] = outputs[name] * given[:, tf.newaxis] // as_read[:, tf.newaxis]
            if reread:
                outputs["reread"] = tf.cast((as_read != width) & (turned == 0), tf.int32)
            if side:
                columns = turning.columns(outputs["char_start"], outputs["char_end"], turned, given)
                own = tf.sequence_mask(tf.gather(lengths, place), tf.shape(outputs["chars"])[1])
                outputs["char_start"], outputs["char_end"] = (tf.where(own, value, 0) for value in columns)
                outputs["turned"] = turned
        return outputs

    def in_groups(
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

    def joined(self, ids: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Returns texts string[B], given their classes int32[B, N] and lengths int32[B]."""
        return tf.strings.reduce_join(self.characters(ids, lengths), axis=1)


def not_empty(batch: tf.Tensor) -> tf.Tensor:
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
