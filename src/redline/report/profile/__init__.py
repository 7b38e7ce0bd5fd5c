"""A profile as tables, one page of notes, charts, and a timeline to look into."""
