"""Rules of the verdict, one function each: it looks at a `Case`, and speaks up or not."""
