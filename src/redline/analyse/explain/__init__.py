"""Why were some requests slow: shares of their time, stalls of their streams, and who was at it when they stalled."""
