"""From an image file to the network's input: headers, decoding, scaling to a line, augmentation.

`header` holds the limits on an image's size.
"""
