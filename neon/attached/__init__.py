"""The torch.optim.Optimizer that `attach` returns: groups, checkpoints, layers by name."""
