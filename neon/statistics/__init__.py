"""What a step did to each parameter and layer: gradients, weights, updates, what was clipped, what rounding lost."""
