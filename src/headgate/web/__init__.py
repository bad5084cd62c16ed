"""HTTP: the ASGI middleware and what it answers itself. Thin: decisions are the model's, work the services'."""
