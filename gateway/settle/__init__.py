"""What was used, and what it costs: prices, the ledger's records, and the one place where a request is closed."""
