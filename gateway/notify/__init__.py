"""What the gateway tells others by itself: webhooks. Nothing of it is on a request's way."""
