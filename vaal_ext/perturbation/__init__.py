"""How the perturbation r of a sample is found, and what is measured with it."""
