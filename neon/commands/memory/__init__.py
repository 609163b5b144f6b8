"""The command ``neon memory``: what training takes in each format, counted over tensors that have shapes alone."""
