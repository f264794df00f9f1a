"""The benchmark of speed and memory: what is compared, as data, and one runner that measures it."""
