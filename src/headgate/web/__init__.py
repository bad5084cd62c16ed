"""HTTP: the ASGI middleware and what it answers itself. Decisions are the model's."""
