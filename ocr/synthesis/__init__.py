"""Synthetic lines: fonts, texts, drawing, and degradation like that of a scanner or a camera."""
