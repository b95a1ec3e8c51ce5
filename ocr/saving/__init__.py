"""What a training leaves on disk: its folder with checkpoints and best weights, weights to start from, writing an export and
checking it.
"""
