"""Synthetic text lines: fonts, texts, drawing them, damaging them like a scanner or a camera does."""
