"""Labels and image files become records, and records become batches: labels files and their formats, conversion, checking
records, the input pipeline.
"""
