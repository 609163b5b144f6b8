"""Generated source as machine code: compiled, kept in a cache, run on threads."""
