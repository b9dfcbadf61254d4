"""The control plane: tenants, keys, limits, usage. Service functions first, an HTTP API on top of them.

One module per resource. A service function takes a connection inside a transaction (see `gateway.admin.database`),
the caller's `Scope` and plain values; it returns frozen dataclasses, or raises a GatewayError and leaves the rollback
to the transaction. The `penstock` command and the API both stand on these functions.
"""
