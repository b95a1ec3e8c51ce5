"""Training: optimizers and schedules, devices, the compiled steps, what happens around them, the two trainers, and the puzzle
that this project started from.
"""
