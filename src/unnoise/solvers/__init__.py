"""Rules of one step, one a file. ``here`` and ``there`` are the step's ends; no solver sees time or a path."""
