import itertools

import numpy as np
import tensorflow as tf

from ocr import decode


def test_greedy_reads_what_tensorflows_own_decoder_reads():
    logits = np.random.default_rng(0).normal(size=(300, 20, 4)).astype("f")
    frames = np.random.default_rng(1).integers(1, 21, 300).astype("i")
    ids, lengths, _ = decode.greedy(tf.constant(logits), tf.constant(frames))
    theirs, _ = tf.nn.ctc_greedy_decoder(logits.transpose(1, 0, 2), frames, blank_index=3)
    expected = tf.sparse.to_dense(theirs[0], default_value=-1).numpy()
    ours = [row[:n].tolist() for row, n in zip(ids.numpy(), lengths.numpy(), strict=True)]
    assert ours == [[c for c in row if c >= 0] for row in expected.tolist()]
    assert max(map(len, ours)) > 5


def test_the_confidence_is_the_probability_of_the_text_over_all_alignments():
    logits = np.random.default_rng(2).normal(size=(1, 4, 3)).astype("f") * 2
    p = np.exp(logits[0]) / np.exp(logits[0]).sum(1, keepdims=True)
    ids, lengths, confidence = decode.greedy(tf.constant(logits), tf.constant([4]))
    text = ids.numpy()[0, : lengths[0]].tolist()
    total = sum(
        np.prod([p[t, c] for t, c in enumerate(path)])
        for path in itertools.product(range(3), repeat=4)
        if [c for c, _ in itertools.groupby(path) if c != 2] == text
    )
    np.testing.assert_allclose(confidence, [total], rtol=1e-5)


def test_blank_frames_and_empty_batches_give_empty_texts():
    blanks = np.zeros((2, 5, 3), "f")
    blanks[..., 2] = 9.0
    ids, lengths, confidence = decode.greedy(tf.constant(blanks), tf.constant([5, 2]))
    assert (ids.shape, lengths.numpy().tolist()) == ((2, 0), [0, 0])
    assert (confidence.numpy() > 0.99).all()
    ids, lengths, confidence = decode.greedy(tf.zeros([0, 5, 3]), tf.zeros([0], tf.int32))
    assert (ids.shape[0], lengths.shape[0], confidence.shape[0]) == (0, 0, 0)
