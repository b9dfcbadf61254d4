"""The control-plane API's routes: one router per resource, each a thin layer over the service functions."""
