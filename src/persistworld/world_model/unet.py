"""SVD's spatio-temporal U-Net with Ctrl-World's frame-level conditioning: each frame attends only to its own token."""

import torch
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import AlphaBlender
from torch import Tensor, nn
from torch.nn import functional

from persistworld.config.world_model import UNetConfig


class FrameConditionedUNet(UNetSpatioTemporalConditionModel):
    """A U-Net with one context token per frame. The stock U-Net repeats one context over all frames of a clip.

    Parameters and their names equal those of the stock U-Net, so SVD's and Ctrl-World's weights load key by key.
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
        video = torch.zeros(batch, frames, dtype=dtype, device=sample.device)  # no frame is a still image

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
            # Doubling does not restore an odd size, so the size of the next skip is passed.
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
    """Cross-attention over one token: the softmax is 1, so the result is the token's value for every query."""

    def __call__(
        self, attn: Attention, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, **_: object
    ) -> Tensor:
        assert encoder_hidden_states is not None and encoder_hidden_states.shape[1] == 1
        value = attn.to_out[0](attn.to_v(encoder_hidden_states))
        return value.expand(-1, hidden_states.shape[1], -1)


class TemporalConvolution(nn.Conv3d):
    """A convolution over frames with kernel (k, 1, 1), computed as a 2-D convolution over (frames, pixels), which is faster on CPUs."""

    def forward(self, video: Tensor) -> Tensor:
        """(B, C, F, h, w) to (B, C', F, h, w)."""
        rows = functional.conv2d(video.flatten(3), self.weight[..., 0], self.bias, padding=(self.padding[0], 0))
        return rows.unflatten(3, video.shape[3:])


class Blend(AlphaBlender):
    """Blends spatial and temporal features with the learned factor, in one pass over memory.

    Only for SVD's U-Net, where the factor is the weight of the spatial features and no frame is a still image. (In the autoencoder's
    decoder it is the weight of the temporal features.)
    """

    def forward(self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None) -> Tensor:
        """Both inputs and the result have the same shape."""
        return torch.lerp(x_temporal, x_spatial, torch.sigmoid(self.mix_factor).to(x_spatial.dtype))


class GatedFeatures(GEGLU):
    """GELU-gated features, with separate matrix products for the features and the gate.

    The two halves of one product would not be contiguous, and their gradients would have to be concatenated.
    """

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., D) to (..., D')."""
        if not isinstance(self.proj, nn.Linear):  # peft has replaced the layer
            return super().forward(hidden_states)
        halves = zip(self.proj.weight.chunk(2), self.proj.bias.chunk(2), strict=True)
        features, gate = (functional.linear(hidden_states, *half) for half in halves)
        gate = functional.gelu(gate)
        return gate * features if torch.is_grad_enabled() else gate.mul_(features)


def build_unet(sizes: UNetConfig, latent_channels: int, frames: int) -> FrameConditionedUNet:
    """Build a U-Net of `sizes` with random weights. Input: 2 * latent_channels (noised latent, current frame); output: latent_channels."""
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
    """Replace layers by faster equivalents in place.

    One-token cross-attention skips the softmax. On a CPU also: plain matrix products instead of fused attention, which is slower for
    short sequences; temporal convolutions in 2-D; and fewer passes over memory.
    """
    short, on_cpu = AttnProcessor(), not torch.cuda.is_available()
    for name, module in unet.named_modules():
        if isinstance(module, Attention):
            if name.endswith("attn2"):
                module.set_processor(SingleTokenProcessor())
            elif on_cpu:
                module.set_processor(short)
        elif on_cpu and type(module) in FAST_ON_CPU:
            module.__class__ = FAST_ON_CPU[type(module)]  # the same parameters under the same names
