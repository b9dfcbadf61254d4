"""What Penstock promises, which test measures each promise, and the page that shows the figures."""
