"""Single functions and classes, without sockets; mirrors the package."""
