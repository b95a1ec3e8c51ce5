"""What a training leaves on disk: checkpoints and best weights, weights to start from, exports and their check."""
