"""The benchmark of Rowhouse: every figure is a ratio, measured side by side in one run.

`python -m bench` runs all stages, `python -m bench list growth` some of them. Results go to `bench/results.json`, row by
row; `docs/reference/performance.md` and its plots are made from that file alone. Nothing here is part of the product,
and nothing here reaches into it: the contenders are driven over HTTP, the command line and SQL.
"""
