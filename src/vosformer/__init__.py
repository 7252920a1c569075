"""vosformer."""
