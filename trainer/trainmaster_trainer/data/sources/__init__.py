"""The sources that we ship, one file each: `build` gets a `Request` and returns rows.

The module's name is the part of `data.source` before the colon; `table` is for paths that end in .csv or .parquet.
"""
