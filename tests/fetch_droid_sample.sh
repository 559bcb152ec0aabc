#!/usr/bin/env bash
# Six episodes of DROID (CC BY 4.0), as Ctrl-World's repository (MIT) has them, into ../shared/droid_sample; two keep their latents.
set -euo pipefail
sample=$(realpath -m "$(dirname "$0")/../../shared/droid_sample")
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
git clone --quiet --filter=blob:none --no-checkout https://github.com/Robert-gyj/Ctrl-World "$source"
git -C "$source" checkout --quiet 4c713d18e458a3ae70911572df2c4a8bf659b931 -- dataset_example/droid_subset dataset_meta_info/droid_subset
mkdir -p "$sample"
cp "$source/dataset_meta_info/droid_subset/stat.json" "$sample"
cd "$source/dataset_example/droid_subset"
cp --parents annotation/train/{0,3,5,6}.json annotation/val/{199,1799}.json "$sample"
cp --parents -r videos/train/{0,3,5,6} videos/val/{199,1799} latent_videos/train/6 latent_videos/val/199 "$sample"
