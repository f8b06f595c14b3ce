"""Sites and a coordinator over TLS: who may take part, what runs, and what is kept of it."""
