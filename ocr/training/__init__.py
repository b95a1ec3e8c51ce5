"""Training: the optimizer, devices, compiled steps, the loop around them, both trainers, and the puzzle of confusing-ctc."""
