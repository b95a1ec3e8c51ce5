"""Labels and image files to records, and records to batches: labels files, conversion, verification, the input pipeline."""
