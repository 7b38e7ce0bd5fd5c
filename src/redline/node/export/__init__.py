"""A plan as something that other tools carry out: one module per form, all from the same changes."""
