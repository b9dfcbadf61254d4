"""Everything that is configured: process settings from flags, environment and file, and penstock.yaml itself.

The only reader of the environment. What it returns is frozen and passed down; errors are one ConfigError that names the
variable or the line.
"""

from gateway.settings.config_file import load_config, parse_config
from gateway.settings.problems import ConfigFileError, ConfigProblem
from gateway.settings.process import Settings, load_settings
from gateway.settings.watcher import ConfigWatcher

__all__ = [
    "ConfigFileError",
    "ConfigProblem",
    "ConfigWatcher",
    "Settings",
    "load_config",
    "load_settings",
    "parse_config",
]
