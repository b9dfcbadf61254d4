"""Who is calling: key format and hashing, the key cache, the key store, and the principal they end in."""
