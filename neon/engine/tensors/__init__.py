"""The tensors of a parameter: which there are, how they lie in memory, whether they are still there."""
