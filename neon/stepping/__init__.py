"""A step: the plan of what is held, by lists of layers, by parameter groups, or within the backward pass."""
