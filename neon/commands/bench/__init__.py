"""``neon bench``: how fast a step is on the machine at hand, beside torch.optim and beside memory itself.

Nothing is imported here: a process that measures its own start begins in this package.
"""
