"""Result files of other tools, read as redline's own request records."""
