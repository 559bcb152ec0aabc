#!/usr/bin/env bash
# RoboEngine at a fixed commit, its spaCy model (a wheel in its repository), and this repository, into the environment that roboengine.yml made.
# Snakemake runs this in that environment, in the folder that it was started in: the root of this repository.
set -euo pipefail

commit=a6e6f6ddc2ae181c2379dd56964938814680ab42
source=$CONDA_PREFIX/src/roboengine
rm -rf "$source"
git init --quiet "$source"
git -C "$source" fetch --quiet --depth 1 https://github.com/michaelyuancb/roboengine "$commit"
git -C "$source" checkout --quiet FETCH_HEAD
echo "$source" > "$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/roboengine.pth"
python -m pip install --quiet --no-deps "$source"/en_core_web_sm-3.8.0-py3-none-any.whl
python -m pip install --quiet --no-deps --no-build-isolation --editable .
python -c "import persistworld.evaluation.roboengine as masks; masks.import_engine()"
