"""What can be asked about an image file beside its text, in the graph: scores of given texts, and texts under constraints."""

import tensorflow as tf

from ocr import ctc
from ocr.images import preprocess
from ocr.model import constrain, edits, score, template
from ocr.model.recogniser import Group, Recogniser, not_empty

REFUSED = 4  # a status beside those of `ocr.images.preprocess`: what is asked of an image breaks a rule
_RULED_OUT = -1e9  # logit of a class that is not allowed; finite, since a beam takes differences


def score_files(recogniser: Recogniser, image_bytes: tf.Tensor, text: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
    """Tells how probable given texts are. The network runs once an image, however many texts there are.

    Probabilities are those that confidences are: of the same logits, calibrated if the export is.

    Args:
      recogniser: reads.
      image_bytes: string[B], as in `Recogniser.read_files`.
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
      `status` int32[B], as in `Recogniser.read_files`, or REFUSED.
      `error` string[B], which rule a refused row breaks (see `score.refusals`); empty for all others.
    """
    rows = tf.size(image_bytes)
    pixels, width, status, _ = recogniser.rows(not_empty(image_bytes))
    text, count = not_empty(text), not_empty(count)
    error = score.refusals(text, count)
    status = tf.where(error != "", REFUSED, status)
    count = tf.where(status == preprocess.READ, count, 0)
    text = tf.where(tf.sequence_mask(count, tf.shape(text)[1]), text, "")
    ids = recogniser.charset.encode_graph(tf.reshape(text, [-1]))
    lengths = tf.reshape(tf.cast(ids.row_lengths(), tf.int32), tf.shape(text))
    labels = ids.to_tensor(-1)
    labels = tf.reshape(labels, tf.concat([tf.shape(text), tf.shape(labels)[1:]], axis=0))  # [B, K, N]
    first = tf.strings.unicode_split(tf.pad(text, [[0, 0], [0, 1]])[:, 0], "UTF-8")

    def answer(group: Group) -> list[tf.Tensor]:
        counts = tf.where(group.is_read, tf.gather(count, group.rows), 0)
        asked = tf.where(tf.sequence_mask(counts, tf.shape(text)[1]))  # which text of which line, [Q, 2]
        which = tf.stack([tf.gather(group.rows, asked[:, 0]), tf.cast(asked[:, 1], tf.int32)], axis=1)
        own = tf.gather_nd(lengths, which)
        longest = tf.reduce_max(tf.pad(own, [[0, 1]]))
        # Where all texts are empty, there is no column to gather from or to scatter into; so there is one more.
        own_labels = tf.gather_nd(tf.pad(labels, [[0, 0], [0, 0], [0, 1]]), which)[:, :longest]
        scores = score.score(group.logits, group.frames, tf.cast(asked[:, 0], tf.int32), own_labels, own)
        shape = tf.concat([tf.shape(counts), tf.shape(labels)[1:]], axis=0)
        log_probability = tf.tensor_scatter_nd_update(tf.fill(shape[:2], -float("inf")), asked, scores.log_probability)
        agreement = tf.pad(scores.agreement, [[0, 0], [0, shape[2] + 1 - longest]])
        agreement = tf.scatter_nd(tf.cast(asked, tf.int32), agreement, tf.add(shape, [0, 0, 1]))[:, :, :-1]
        decoded = recogniser.decode(group.logits, group.frames)
        characters = recogniser.characters(decoded.ids, decoded.lengths)
        given = tf.gather(first, group.rows)
        given_lengths = tf.cast(given.row_lengths(), tf.int32)
        inserted = edits.inserted(characters, decoded.lengths, given.to_tensor(""), given_lengths)
        missing = tf.strings.reduce_join(tf.where(inserted & (counts > 0)[:, tf.newaxis], characters, ""), axis=1)
        return [missing, group.status, log_probability, agreement]

    (missing, codes, log_probability, agreement), place = recogniser.in_groups(
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


def read_constrained(
    recogniser: Recogniser, image_bytes: tf.Tensor, allowed: tf.Tensor, pattern: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Reads image files of which something is known.

    Without a pattern, what the decoder finds among the allowed characters is read; with one, the text of the most probable
    path through it.

    Args:
      recogniser: reads.
      image_bytes: string[B], as in `Recogniser.read_files`.
      allowed: string[B], the characters that may occur, in UTF-8; empty for all.
      pattern: string[B], which texts are possible: see `template`; empty for all.

    Returns:
      `text` string[B]; empty, with confidence 0, if no text of these characters fits the pattern and the image.
      `confidence` float32[B], the probability of the text, given that all characters are allowed ones and that it fits
      the pattern.
      `unconstrained_confidence` float32[B], the probability of the same text without that knowledge.
      `status` int32[B], as in `Recogniser.read_files`, or REFUSED.
      `error` string[B], which rule a refused row breaks; empty for all others.
    """
    pixels, width, status, _ = recogniser.rows(not_empty(image_bytes))
    allowed, pattern = not_empty(allowed), not_empty(pattern)

    def answer(group: Group) -> list[tf.Tensor]:
        mask, error = constrain.allowed_classes(tf.gather(allowed, group.rows), recogniser.charset)
        chains, no_pattern = template.parse(tf.gather(pattern, group.rows), recogniser.charset)
        error = tf.where(error != "", error, no_pattern)
        with_blank = tf.pad(mask, [[0, 0], [0, 1]], constant_values=True)[:, tf.newaxis]
        decoded = recogniser.decode(tf.where(with_blank, group.logits, _RULED_OUT), group.frames)
        free = constrain.Reading(decoded.ids, decoded.lengths, decoded.confidence)
        has_pattern = tf.reduce_any(chains.row == tf.range(tf.size(group.rows))[:, tf.newaxis], axis=1)

        def fitting() -> constrain.Reading:
            return constrain.choose(has_pattern, constrain.read(group.logits, group.frames, mask, chains), free)

        reading = tf.cond(tf.reduce_any(has_pattern), fitting, lambda: free)
        unconstrained = ctc.probability(group.logits, group.frames, reading.ids, reading.lengths)
        codes = tf.where(error != "", REFUSED, group.status)
        is_read = codes == preprocess.READ
        text = recogniser.joined(reading.ids, tf.where(is_read, reading.lengths, 0))
        possible = is_read & (~has_pattern | (reading.confidence > 0))
        confidences = (tf.where(possible, value, 0.0) for value in (reading.confidence, unconstrained))
        return [text, *confidences, codes, error]

    names = ("text", "confidence", "unconstrained_confidence", "status", "error")
    kinds = [tf.string, tf.float32, tf.float32, tf.int32, tf.string]
    outputs, place = recogniser.in_groups(pixels, width, status, answer, kinds)
    return {name: tf.gather(value, place)[: tf.size(image_bytes)] for name, value in zip(names, outputs, strict=True)}
