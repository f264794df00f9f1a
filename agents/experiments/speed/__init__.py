"""The benchmark of speed and memory: what is compared, as data, and the runner that measures it."""
