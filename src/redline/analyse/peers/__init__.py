"""Other tools' numbers, recomputed from redline's raw log by those tools' own definitions."""
