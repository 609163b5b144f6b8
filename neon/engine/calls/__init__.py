"""Functions on stacks of matrices that a rule may call within a step, between sweeps over elements."""
