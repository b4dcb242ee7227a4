"""Ways to steer a run, one a file; they compose: ``Interval(Rescale(CFG(5.0), 0.7), lo, hi)``."""
