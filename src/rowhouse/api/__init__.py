"""The REST walker: turns requests into operation calls and their results into JSON. It knows no module."""
