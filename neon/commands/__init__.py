"""The commands `neon compare`, `neon bench` and `neon show`, and what they share.

Nothing is imported here: a process that measures its own start begins in this package.
"""
