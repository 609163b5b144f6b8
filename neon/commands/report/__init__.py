"""``neon report``: what the steps of a run did to each layer, drawn from the file that its statistics are in."""
