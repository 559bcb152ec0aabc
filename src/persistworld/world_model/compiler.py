"""What torch.compile needs of the machine."""

import os
import shutil

from persistworld.runtime.errors import UserError


def require_compiler(key: str, value: object) -> None:
    """Raises UserError when there is no C++ compiler for the setting `key`, which asks for torch.compile."""
    compiler = os.environ.get("CXX", "g++")  # as torch.compile looks for it
    if shutil.which(compiler) is None:
        advice = "torch.compile needs a C++ compiler: install one, name yours in CXX, or leave the setting out"
        raise UserError(f"{key} = {value}: found no {compiler}; {advice}")
