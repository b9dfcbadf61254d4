"""The test suite of Penstock; the folders say which kind of proof a test is."""
