"""Print what a run will use, leave out and convert, and how much disk and time it takes.

The stage `episodes` prints the same page. Problems that would stop a later stage are reported here, in one line.
"""

import argparse

from persistworld.config.params import Params
from persistworld.preflight.page import preflight


def main(params: Params, args: argparse.Namespace) -> None:
    """Print the page. Raises UserError at the first problem that would stop a run later."""
    print(preflight(params, args.threads))
