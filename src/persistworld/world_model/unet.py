"""SVD's spatio-temporal U-Net with the frame-level condition of Ctrl-World: frame f attends to its own token only."""

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import AlphaBlender
from torch import Tensor, nn
from torch.nn import functional

from persistworld.config.world_model import UNetConfig


class FrameConditionedUNet(UNetSpatioTemporalConditionModel):
    """The stock U-Net takes one context for a clip and repeats it over the frames; this one takes a token per frame.

    Parameters and their names are the stock ones, so SVD's and Ctrl-World's weights load key by key.
    """

    def forward(self, sample: Tensor, timestep: Tensor, frame_tokens: Tensor, added_time_ids: Tensor) -> Tensor:
        """Predict the EDM network output m (paper Eq. 8).

        sample: (B, F, C_in, h, w); timestep: (B,) c_noise = ln(sigma) / 4; frame_tokens: (B, F, D), one context token per frame;
        added_time_ids: (B, 3) fps, motion bucket, noise augmentation. Returns (B, F, C_out, h, w).
        """
        batch, frames = sample.shape[:2]
        dtype = sample.dtype
        embedding = self.time_embedding(self.time_proj(timestep).to(dtype))
        added = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1).to(dtype)
        embedding = (embedding + self.add_embedding(added)).repeat_interleave(frames, dim=0)
        tokens = frame_tokens.flatten(0, 1)[:, None]  # (B * F, 1, D): each frame sees its own token
        video = torch.zeros(batch, frames, dtype=dtype, device=sample.device)  # "none of these frames is a still image"

        hidden = self.conv_in(sample.flatten(0, 1))
        skips = (hidden,)
        for block in self.down_blocks:
            context = {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
            hidden, outputs = block(hidden_states=hidden, temb=embedding, image_only_indicator=video, **context)
            skips += outputs
        hidden = self.mid_block(
            hidden_states=hidden, temb=embedding, encoder_hidden_states=tokens, image_only_indicator=video
        )
        for block in self.up_blocks:
            skips, own = skips[: -len(block.resnets)], skips[-len(block.resnets) :]
            context = {"encoder_hidden_states": tokens} if getattr(block, "has_cross_attention", False) else {}
            # A level of odd size does not double back to it, so the size of the next skip is handed over.
            size = skips[-1].shape[2:] if skips else None
            hidden = block(
                hidden_states=hidden,
                temb=embedding,
                res_hidden_states_tuple=own,
                upsample_size=size,
                image_only_indicator=video,
                **context,
            )
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.reshape(batch, frames, *hidden.shape[1:])


class SingleTokenProcessor:
    """Cross-attention over one token: the softmax is 1, so the result is the token's value, whatever the query."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        assert encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1
        value = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return value.expand(-1, hidden_states.shape[1], -1)


class TemporalConvolution(nn.Conv3d):
    """A convolution over frames alone, kernel (k, 1, 1), as one over frames and pixels in a row: CPUs are fast in two dimensions."""

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, F, h, w) to (B, C', F, h, w)."""
        rows = functional.conv2d(video.flatten(3), self.weight[..., 0], self.bias, padding=(self.padding[0], 0))
        return rows.unflatten(3, video.shape[3:])


class Blend(AlphaBlender):
    """Spatial and temporal features in the learned proportion, in one pass over memory. As in SVD's U-Net, which has no other kind: the
    proportion is the spatial part's (not so in the autoencoder's decoder), and every frame is a video's."""

    def forward(self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None) -> Tensor:
        """Features of one shape to features of that shape."""
        return torch.lerp(x_temporal, x_spatial, torch.sigmoid(self.mix_factor).to(x_spatial.dtype))


class GatedFeatures(GEGLU):
    """GELU-gated features, by a product for the features and another for the gate: halves of one product are not contiguous, and their
    gradients have to be put together again."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) to (..., D')."""
        if not isinstance(self.proj, nn.Linear):  # peft has put its own layer there
            return super().forward(hidden_states)
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        features, gate = (functional.linear(hidden_states, *half) for half in halves)
        gate = functional.gelu(gate)
        return gate * features if torch.is_grad_enabled() else gate.mul_(features)


def build_unet(sizes: UNetConfig, latent_channels: int, frames: int) -> FrameConditionedUNet:
    """A U-Net of `sizes` with random weights: input 2 * latent_channels (noised latent, current frame), output latent_channels."""
    levels = len(sizes.channels)
    unet = FrameConditionedUNet(
        in_channels=2 * latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * (levels - 1) + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * (levels - 1),
        block_out_channels=tuple(sizes.channels),
        num_attention_heads=tuple(sizes.heads),
        layers_per_block=sizes.layers,
        cross_attention_dim=sizes.cross_attention_dim,
        addition_time_embed_dim=sizes.addition_time_embed_dim,
        projection_class_embeddings_input_dim=3 * sizes.addition_time_embed_dim,
        num_frames=frames,
    )
    use_fast_layers(unet)
    return unet


FAST_ON_CPU = {nn.Conv3d: TemporalConvolution, AlphaBlender: Blend, GEGLU: GatedFeatures}


def use_fast_layers(unet: nn.Module) -> None:
    """Skip the softmax where there is one token; on a CPU, plain matrix products in place of the fused attention, which loses on short
    sequences, temporal convolutions in two dimensions, and fewer passes over memory."""
    short, on_cpu = AttnProcessor(), not torch.cuda.is_available()
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            if name.endswith("attn2"):
                module.set_processor(SingleTokenProcessor())
            elif on_cpu:
                module.set_processor(short)
        elif on_cpu and type(module) in FAST_ON_CPU:
            module.__class__ = FAST_ON_CPU[type(module)]  # the same parameters under the same names
