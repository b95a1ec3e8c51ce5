"""The command lines: absl flags, and one call into the library each."""
