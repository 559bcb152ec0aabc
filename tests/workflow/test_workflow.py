"""Snakemake and DVC see the same workflow, and see every change.

The engines run on a copy of the repository whose outputs are placeholders: what is tested is which jobs they want.
tests/test_workflow_run.py runs the stages themselves.
"""

import ast
import contextlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import dvc_yaml
import pytest
import record
import yaml
from engines import ROOT, change, copy_of_repository, dvc_status, jobs, planned, run, snakemake, stages

from persistworld.config.data import MasksConfig
from persistworld.config.params import Params, load_params

