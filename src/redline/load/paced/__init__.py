"""The paced server: an OpenAI-like endpoint that answers on an exact schedule and knows what it really did."""
