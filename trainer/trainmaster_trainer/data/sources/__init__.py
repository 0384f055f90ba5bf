"""The sources that we ship, one file each: `build` gets a `Request` and returns rows.

The module's name is what stands before the colon in `data.source`; `table` is for paths that end in .csv or .parquet.
"""
