"""What tests share: servers, clients and processes. No tests in here."""
