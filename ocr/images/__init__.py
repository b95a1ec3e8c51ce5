"""An image file's bytes become a text line, and a line the network's input: reading headers, decoding, scaling, augmentation.

The limits on an image's size stand in `header`.
"""
