"""What the gateway tells about itself: metrics for Prometheus and one structured log line a request."""
