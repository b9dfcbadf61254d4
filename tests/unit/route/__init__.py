"""Units of gateway.route."""
