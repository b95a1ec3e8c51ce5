"""The characters that one text has and another lacks, in the graph."""

import tensorflow as tf

_FAR = 1 << 20  # edits; more than any two texts need


def inserted(read: tf.Tensor, read_lengths: tf.Tensor, given: tf.Tensor, given_lengths: tf.Tensor) -> tf.Tensor:
    """Finds the characters that have to be inserted into given texts to get those read, along with the fewest other edits.

    Edits are insertions, deletions and substitutions, as in the edit distance of Levenshtein, 1966. Of several
    alignments with the fewest, the one is taken that, followed from the end, pairs characters wherever it can.

    Args:
      read: string[B, M], one character each.
      read_lengths: int32[B]; entries beyond are ignored.
      given: string[B, N], one character each.
      given_lengths: int32[B]; entries beyond are ignored.

    Returns:
      bool[B, M], whether a character of the text read is inserted; false beyond its length.
    """
    batch, longest = tf.unstack(tf.shape(read))
    places = tf.range(tf.shape(given)[1] + 1)  # characters of the given text, in front of which an alignment is
    # Nearly all lines are read as given, or but for one or two characters. These need no loop: to substitute two is no more
    # than to insert one and delete another, and pairs.
    width = tf.maximum(longest, tf.shape(given)[1])
    other = tf.pad(read, [[0, 0], [0, width - longest]]) != tf.pad(given, [[0, 0], [0, width - tf.shape(given)[1]]])
    others = tf.reduce_sum(tf.cast(other & tf.sequence_mask(read_lengths, width), tf.int32), axis=1)
    paired = (others <= 2) & (read_lengths == given_lengths)
    total = tf.where(paired, 0, read_lengths + given_lengths)
    diagonals = tf.reduce_max(tf.concat([total, [0]], axis=0)) + 1

    padded = tf.pad(read, [[0, 0], [0, 1]])

    def forward(diagonal: tf.Tensor, last: tf.Tensor, previous: tf.Tensor, moves: tf.TensorArray) -> tuple:
        row = diagonal - places  # characters of the text read, [N + 1]
        character = tf.gather(padded, tf.clip_by_value(row[1:] - 1, 0, longest), axis=1)
        different = tf.cast(character != given, tf.int32)
        before = tf.fill([batch, 1], _FAR)
        costs = tf.stack(  # of pairing two characters, of an insertion, and of a deletion
            [
                tf.concat([before, previous[:, :-1] + different], axis=1),
                last + 1,
                tf.concat([before, last[:, :-1] + 1], axis=1),
            ]
        )
        costs = tf.where((row >= 0) & (row <= longest), costs, _FAR)
        best = tf.where((diagonal == 0) & (places == 0), 0, tf.reduce_min(costs, axis=0))
        moves = moves.write(diagonal, tf.cast(tf.argmin(costs, axis=0, output_type=tf.int32), tf.int8))
        return diagonal + 1, best, last, moves

    far = tf.fill([batch, tf.size(places)], _FAR)
    moves = tf.TensorArray(tf.int8, diagonals, element_shape=[None, None])
    *_, moves = tf.while_loop(lambda diagonal, *_: diagonal < diagonals, forward, (0, far, far, moves))

    def back(diagonal: tf.Tensor, row: tf.Tensor, place: tf.Tensor, found: tf.TensorArray) -> tuple:
        here = (row + place == diagonal) & ~paired & (diagonal > 0)
        move = tf.cast(tf.gather(moves.read(diagonal), place, batch_dims=1), tf.int32)
        found = found.write(diagonal, tf.where(here & (move == 1), row - 1, longest))
        return diagonal - 1, row - tf.cast(here & (move < 2), tf.int32), place - tf.cast(here & (move != 1), tf.int32), found

    found = tf.TensorArray(tf.int32, diagonals, element_shape=[None])
    start = (diagonals - 1, read_lengths, given_lengths, found)
    *_, found = tf.while_loop(lambda diagonal, *_: diagonal >= 0, back, start)
    # A row that is not an insertion is one beyond the text's end.
    return tf.reduce_any(found.stack()[:, :, tf.newaxis] == tf.range(longest), axis=0)
