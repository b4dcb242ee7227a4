"""Key tables: published names of weights, and ours."""
