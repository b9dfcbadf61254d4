"""What a library takes from the environment alone, set before it is imported: nobody else may touch the environment."""

from __future__ import annotations

import os

LITELLM_ENVIRONMENT = {
    # Otherwise importing it reads a file `.env` of the working directory into the environment.
    "LITELLM_MODE": "PRODUCTION",
    # Otherwise importing it, and the first request to Anthropic, download tables from the internet.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    # Otherwise it fetches the images that a prompt points to, for providers that want them inline.
    "MAX_IMAGE_URL_DOWNLOAD_SIZE_MB": "0",
}


def prepare_for_litellm() -> None:
    """Set what litellm reads while it is imported; once it has been, this changes nothing."""
    os.environ.update(LITELLM_ENVIRONMENT)
