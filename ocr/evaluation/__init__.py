"""How well a recogniser reads: metrics, the evaluation of a split, the report, and pictures of results."""
