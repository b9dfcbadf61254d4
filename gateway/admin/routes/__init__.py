"""The control-plane API's routes: one router per resource, each a thin layer over the service functions.

What is answered are the service functions' own dataclasses, the same that the `penstock` command writes as JSON.
FastAPI reads their annotations, so their modules import at run time what these name.
"""
