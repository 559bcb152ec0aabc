"""Checks that the machine can run torch.compile."""

import os
import shutil

from persistworld.runtime.errors import UserError


def require_compiler(key: str, value: object) -> None:
    """Raise UserError if there is no C++ compiler. The setting `key` = `value` enables torch.compile."""
    compiler = os.environ.get("CXX", "g++")  # the same lookup as in torch.compile
    if shutil.which(compiler) is None:
        advice = "torch.compile needs a C++ compiler: install one, name yours in CXX, or leave the setting out"
        raise UserError(f"{key} = {value}: found no {compiler}; {advice}")
