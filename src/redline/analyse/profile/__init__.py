"""Where a step goes: kernels by class, gaps, launches, from the events of a trace. Pure functions over columns."""
