"""Records on disk: their schema, the shard writer, the manifest, the reader and integrity checks; imports no other package."""
