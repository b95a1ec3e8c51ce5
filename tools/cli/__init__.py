"""What all commands have in common: how they run, their flags, signals, and TensorFlow in them."""
