"""May this request run now: which limits apply, what it will probably use, and one atomic question to Redis."""
