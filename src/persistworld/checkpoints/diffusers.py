"""Reads and writes folders of diffusers and transformers: SVD and CLIP, the starting point of Ctrl-World's training."""

from pathlib import Path

import torch
from diffusers import UNetSpatioTemporalConditionModel
from transformers import CLIPTextConfig

from persistworld.checkpoints.ctrl_world import FLAT_TEXT, IN_AUTOENCODER, IN_IMAGE_ENCODER, image_encoder_config
from persistworld.config.world_model import AutoencoderConfig, TextEncoderConfig, UNetConfig, WorldModelConfig
from persistworld.runtime.errors import UserError
from persistworld.runtime.files import atomic_path, read_json, write_json
from persistworld.runtime.tensor_files import Tensors, map_tensors, write_safetensors
from persistworld.world_model.action_encoder import ActionEncoder
from persistworld.world_model.autoencoder import Autoencoder
from persistworld.world_model.poses import PoseStatistics
from persistworld.world_model.text import InstructionEncoder, load_tokenizer, save_tokenizer
from persistworld.world_model.unet import build_unet


def read_folders(svd: Path, clip: Path, statistics: PoseStatistics, seed: int) -> tuple[Tensors, WorldModelConfig]:
    """Read the folders of SVD and CLIP, as diffusers and transformers save them, as flat tensors with their configuration.

    Sizes come from config.json in the folders. Neither has an action encoder, so it gets random weights from `seed`.
    """
    config = _config_of_folders(svd, clip, statistics.rotation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = ActionEncoder(len(statistics.low), config.unet.cross_attention_dim)
    text = {n: t for n, t in _weights_of(clip).items() if n.startswith(("text_model.", "text_projection."))}
    parts = {"unet.": _weights_of(svd / "unet"), "vae.": _weights_of(svd / "vae"), FLAT_TEXT: text}
    if (svd / "image_encoder").is_dir():
        parts[IN_IMAGE_ENCODER] = _weights_of(svd / "image_encoder")
    parts["action_encoder."] = encoder.state_dict()
    return {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}, config


def export_folders(tensors: Tensors, config: WorldModelConfig, tokenizer_folder: Path, output: Path) -> None:
    """Write flat `tensors` in the layout of diffusers and transformers: unet/, vae/, text_encoder/, image_encoder/, tokenizer.json.

    Neither library has a class for the action encoder, which goes into action_encoder.safetensors.
    """
    tokenizer = load_tokenizer(tokenizer_folder) if config.use_text else None
    with torch.device("meta"):
        text = InstructionEncoder(config.text_encoder, tokenizer) if tokenizer is not None else None
        unet = build_unet(config.unet, config.autoencoder.latent_channels, config.history + config.future)
        vae = Autoencoder(config.autoencoder).vae
    with atomic_path(output) as part:
        part.mkdir()
        unet.save_config(part / "unet")
        # The parameters equal those of the stock class; with its name, diffusers can open the folder.
        stock = read_json(part / "unet" / "config.json") | {"_class_name": UNetSpatioTemporalConditionModel.__name__}
        write_json(part / "unet" / "config.json", stock)
        vae.save_config(part / "vae")
        diffusers_file, transformers_file = "diffusion_pytorch_model.safetensors", "model.safetensors"
        places = {
            "unet.": f"unet/{diffusers_file}",
            IN_AUTOENCODER: f"vae/{diffusers_file}",
            "action_encoder.": "action_encoder.safetensors",
        }
        if text is not None:
            text.clip.config.save_pretrained(part / "text_encoder")
            save_tokenizer(text.tokenizer, part)
            places[FLAT_TEXT] = f"text_encoder/{transformers_file}"
        image_config = image_encoder_config(tensors)
        if image_config is not None:
            image_config.save_pretrained(part / "image_encoder")
            places[IN_IMAGE_ENCODER] = f"image_encoder/{transformers_file}"
        for prefix, place in places.items():
            write_safetensors(
                {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}, part / place
            )


def _weights_of(folder: Path) -> Tensors:
    """All weights of one model's folder, with shards joined. Prefers safetensors to pickles and full to half precision."""
    for pattern in ("*.safetensors", "*.bin"):
        files = sorted(folder.glob(pattern))
        full = [f for f in files if ".fp16." not in f.name and ".non_ema." not in f.name]
        if chosen := full or files:
            return {name: tensor for file in chosen for name, tensor in map_tensors(file).items()}
    raise UserError(
        f"{folder}: no *.safetensors or *.bin in it; is this a folder that diffusers or transformers saved?"
    )


def _config_of_folders(svd: Path, clip: Path, rotation: str) -> WorldModelConfig:
    unet, vae = read_json(svd / "unet" / "config.json"), read_json(svd / "vae" / "config.json")
    if not (clip / "config.json").exists():
        raise UserError(f"{clip}/config.json: no such file; is this CLIP's folder?")
    text = CLIPTextConfig.from_pretrained(clip)
    if text.hidden_act != "quick_gelu" or text.intermediate_size != 4 * text.hidden_size:
        raise UserError(
            f"{clip}: a text model with {text.hidden_act} and width {text.intermediate_size}; "
            "only OpenAI's CLIP (quick_gelu, four times the width) is known here"
        )
    try:
        return WorldModelConfig(
            autoencoder=AutoencoderConfig(
                patch=1,
                latent_channels=vae["latent_channels"],
                channels=tuple(vae["block_out_channels"]),
                layers=vae["layers_per_block"],
                scaling_factor=vae["scaling_factor"],
            ),
            unet=UNetConfig(
                channels=tuple(unet["block_out_channels"]),
                heads=tuple(unet["num_attention_heads"]),
                layers=unet["layers_per_block"],
                cross_attention_dim=unet["cross_attention_dim"],
                addition_time_embed_dim=unet["addition_time_embed_dim"],
            ),
            text_encoder=TextEncoderConfig(
                hidden=text.hidden_size,
                layers=text.num_hidden_layers,
                heads=text.num_attention_heads,
                projection=text.projection_dim,
                vocabulary=text.vocab_size,
                length=text.max_position_embeddings,
            ),
            rotation=rotation,
        )
    except KeyError as error:
        raise UserError(f"{svd}: config.json lacks {error}; is this SVD's folder?") from None
