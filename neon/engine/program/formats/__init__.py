"""How a number is kept in memory: each format decodes and encodes in graph operations."""
