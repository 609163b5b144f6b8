"""Which optimizer a parameter gets: the parameters of a model, with names and classes, and the keys that fit them."""
