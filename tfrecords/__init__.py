"""Bytes on disk: the record's schema, the shard writer, the manifest and the reader. Imports nothing of `ocr` or `tools`."""
