"""The files of a checkpoint folder, by name; what each holds is in `checkpoint.py`."""

WEIGHTS, CONFIG, MANIFEST = "world_model.safetensors", "config.json", "manifest.json"
