"""Encodes instructions with a CLIP text model with projection (ViT-B/32 in Ctrl-World)."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, PreTrainedTokenizerFast

from persistworld.config.world_model import TextEncoderConfig
from persistworld.runtime.errors import UserError

START, END = "<|startoftext|>", "<|endoftext|>"


class InstructionEncoder(nn.Module):
    """Maps sentences to CLIP's projected embeddings (B, projection)."""

    def __init__(self, sizes: TextEncoderConfig, tokenizer: PreTrainedTokenizerFast) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.length = sizes.length
        self.clip = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=sizes.vocabulary,
                hidden_size=sizes.hidden,
                intermediate_size=4 * sizes.hidden,
                num_hidden_layers=sizes.layers,
                num_attention_heads=sizes.heads,
                projection_dim=sizes.projection,
                max_position_embeddings=sizes.length,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )

    def forward(self, sentences: Sequence[str]) -> Tensor:
        """Embeddings (B, projection) of `sentences`. An empty sentence is CLIP's empty prompt. Too long sentences are truncated."""
        batch = self.tokenizer(
            list(sentences), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        device = self.clip.device
        # CLIP needs no padding mask: it reads the state at the first end token, and attention is causal.
        return self.clip(input_ids=batch["input_ids"].to(device)).text_embeds


def train_tokenizer(sentences: Sequence[str], sizes: TextEncoderConfig) -> PreTrainedTokenizerFast:
    """Train CLIP's byte-pair encoding (lower case, words end in </w>) on `sentences`."""
    # The trainer orders the final letters differently in each process, unless they are passed explicitly.
    final = sorted({letter.lower() + "</w>" for sentence in sentences for letter in sentence if not letter.isspace()})
    learner = _tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    learner.train_from_iterator(
        sentences,
        trainers.BpeTrainer(
            vocab_size=sizes.vocabulary, special_tokens=[START, END, *final], end_of_word_suffix="</w>", show_progress=False
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(pair) for pair in learned["merges"]]
    tokenizer = _tokenizer(models.BPE(learned["vocab"], merges, end_of_word_suffix="</w>", unk_token=END))
    tokenizer.add_special_tokens([START, END])
    start, end = tokenizer.token_to_id(START), tokenizer.token_to_id(END)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, start), (END, end)]
    )
    return _wrap(tokenizer)


def _tokenizer(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    return tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Load the tokenizer of a checkpoint folder from tokenizer.json. Raises UserError if the file is missing or damaged."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise UserError(f"{path}: no such file; fetch or make the checkpoint again")
    try:
        return _wrap(Tokenizer.from_file(str(path)))
    except Exception as error:  # the library raises no more specific type
        raise UserError(f"{path}: not a tokenizer ({error}); fetch or make the checkpoint again") from None


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write tokenizer.json into a checkpoint folder."""
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))


def _wrap(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=START, eos_token=END, pad_token=END)


