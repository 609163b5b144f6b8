"""``neon bench``: how fast a step is on the machine at hand, beside torch.optim and beside memory itself."""
