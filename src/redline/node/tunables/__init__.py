"""Every setting that redline knows, one row each, in files by what they are about. `table.TUNABLES` is all of them."""
