"""Properties: what holds for every input, on inputs that Hypothesis makes up."""
