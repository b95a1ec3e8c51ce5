"""Command lines: flags, and one call into the library each."""
