"""SHOW the store as pages in a browser: `redline ui`. Reads only; on this box alone unless told otherwise."""
