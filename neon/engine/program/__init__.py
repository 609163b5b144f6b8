"""What a rule becomes: a graph, options around it, a kernel in given formats, split into stages."""
