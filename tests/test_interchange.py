"""Checkpoints from and to elsewhere: every name of the reference's, round trips, and what is refused."""

import argparse
import dataclasses
import json
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from peft import PeftModel
from refusals import refused
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from persistworld.checkpoints.adapters import load_world_model, save_adapter
from persistworld.checkpoints.ctrl_world import (
    CTRL_WORLD_STATISTICS,
    flat_shapes,
    flat_tensors,
    image_encoder_shapes,
    read_statistics,
    reconcile,
)
from persistworld.checkpoints.ctrl_world import import_checkpoint as import_tensors
from persistworld.checkpoints.export import apply_adapter, export_adapter, merged_tensors
from persistworld.checkpoints.folders import load_base_model
from persistworld.config.data import BaseCheckpointConfig, EpisodesConfig
from persistworld.config.params import Params, control_sections
from persistworld.config.post_training import AdapterConfig, PostTrainingConfig
from persistworld.config.training import BaseTrainingConfig, ControlConfig
from persistworld.config.world_model import AutoencoderConfig, SamplerConfig, TextEncoderConfig, UNetConfig, WorldModelConfig
from persistworld.runtime.tensor_files import map_tensors, write_pickle, write_safetensors
from persistworld.tools import export_checkpoint, import_checkpoint
from persistworld.training.policy import Policy
from persistworld.world_model.autoencoder import Autoencoder, load_autoencoder
from persistworld.world_model.lora import ADAPTER
from persistworld.world_model.model import Condition, WorldModel
from persistworld.world_model.text import InstructionEncoder, save_tokenizer, train_tokenizer

SHARED = Path(__file__).parents[2] / "shared"
KEYS = Path(__file__).parent / "data/ctrl_world_checkpoint_keys.json"
SENTENCES = ["put the red block into the bowl", "push the cup", "stack the blocks"]
TINY = WorldModelConfig(
    autoencoder=AutoencoderConfig(latent_channels=4, channels=(32, 32), layers=1),
    unet=UNetConfig(channels=(32, 32), heads=(1, 2), layers=1, cross_attention_dim=32, addition_time_embed_dim=8),
    text_encoder=TextEncoderConfig(hidden=16, layers=2, heads=2, projection=16, vocabulary=80, length=12),
)
VIEWS = ("exterior_1", "exterior_2", "wrist")
Flat = dict[str, Tensor]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SENTENCES, TINY.text_encoder)


def test_a_tokenizer_depends_on_its_sentences_alone(tokenizer):
    """The trainer's own order of final letters changes from process to process; ours is the alphabet's, after start and end."""
    vocabulary = tokenizer.get_vocab()
    final = sorted(token for token in vocabulary if len(token) == 5 and token.endswith("</w>"))
    assert len(final) > 3 and [vocabulary[token] for token in final] == list(range(2, 2 + len(final)))
    assert tokenizer.decode(tokenizer(SENTENCES[0])["input_ids"], skip_special_tokens=True).split() == SENTENCES[0].lower().split()


def vision_model() -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=24,
            projection_dim=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=28,
            patch_size=14,
        )
    )


@pytest.fixture(scope="module")
def flat(tokenizer) -> Flat:
    """A tiny checkpoint with Ctrl-World's names, made from the libraries' own classes."""
    torch.manual_seed(0)
    model = WorldModel(TINY, VIEWS, CTRL_WORLD_STATISTICS, InstructionEncoder(TINY.text_encoder, tokenizer))
    parts = {
        "unet.": model.unet,
        "vae.": Autoencoder(TINY.autoencoder).vae,
        "image_encoder.": vision_model(),
        "text_encoder.": model.text_encoder.clip,
        "action_encoder.": model.action_encoder,
    }
    # Parameters that start at zero would hide a mix-up.
    return {p + n: torch.randn_like(t) * 0.05 + t for p, m in parts.items() for n, t in m.state_dict().items()}


@pytest.fixture
def clip_folder(tokenizer, tmp_path: Path) -> Path:
    folder = tmp_path / "clip"
    folder.mkdir()
    save_tokenizer(tokenizer, folder)
    return folder


def tiny_params() -> Params:
    return dataclasses.replace(Params(), world_model=TINY)


def run_import(source: Path, clip: Path, output: Path, statistics: Path | None = None) -> None:
    names = {"source": source, "clip": clip, "output": output, "statistics": statistics}
    import_checkpoint.main(tiny_params(), argparse.Namespace(**names))


def run_export(
    checkpoint: Path, output: Path, format: str = "flat", base: Path | None = None, bare: bool = False
) -> None:
    args = argparse.Namespace(checkpoint=checkpoint, output=output, format=format, base=base, no_image_encoder=bare)
    export_checkpoint.main(tiny_params(), args)


def test_a_flat_checkpoint_is_taken_without_its_text(flat: Flat, clip_folder: Path, tmp_path: Path) -> None:
    silent, poses = dataclasses.replace(TINY, use_text=False), CTRL_WORLD_STATISTICS
    import_tensors(flat, silent, EpisodesConfig().views, poses, clip_folder, tmp_path / "flat.pt", tmp_path / "base")
    assert load_base_model(tmp_path / "base").encode_instructions(["push the cup"]) is None
    assert not (tmp_path / "base/tokenizer.json").exists()


@pytest.fixture
def imported(flat: Flat, clip_folder: Path, tmp_path: Path) -> Path:
    write_pickle(flat, tmp_path / "checkpoint-1.pt")
    run_import(tmp_path / "checkpoint-1.pt", clip_folder, tmp_path / "base")
    return tmp_path / "base"


def assert_same(one: Flat, other: Flat) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]), name


def condition(model: WorldModel, batch: int = 1) -> tuple[Condition, Tensor]:
    generator = torch.Generator().manual_seed(5)
    history = torch.randn(batch, 6, 4, 6, 4, generator=generator)
    poses = torch.rand(batch, 11, 7, generator=generator) * 2 - 1
    text = model.encode_instructions(SENTENCES[:batch])
    return Condition(history, history[:, -1], poses, text), torch.randn(batch, 5, 4, 6, 4, generator=generator)


# The reference's names


def test_full_size_model_has_every_key_and_shape_of_ctrl_world(tokenizer) -> None:
    """All 2,525 of them; neither the models nor the tensors that are read have any memory behind them."""
    reference = {n: torch.Size(s) for n, s in json.loads(KEYS.read_text()).items()}
    assert len(reference) == 2525
    tensors = {n: torch.empty(s, device="meta") for n, s in reference.items()}
    wanted = flat_shapes(WorldModelConfig(), CTRL_WORLD_STATISTICS, tokenizer) | image_encoder_shapes(tensors)
    assert wanted == reference
    assert list(reconcile(tensors, wanted, "reference")) == list(wanted)


@pytest.mark.skipif(
    not (SHARED / "droid_sample" / "stat.json").exists(), reason="needs ../shared/droid_sample/stat.json"
)
def test_ctrl_worlds_statistics_are_those_of_its_file() -> None:
    assert read_statistics(SHARED / "droid_sample" / "stat.json") == CTRL_WORLD_STATISTICS


def test_names_of_other_transformers_releases_and_wrappers(flat: Flat, tokenizer) -> None:
    def other_release(name: str) -> str:
        name = name.replace("text_encoder.text_model.", "text_encoder.")
        return name.replace("image_encoder.vision_model.", "image_encoder.").replace("pre_layrnorm", "pre_layernorm")

    drifted = {"module." + other_release(n): t for n, t in flat.items()}
    drifted["module.text_encoder.text_model.embeddings.position_ids"] = torch.arange(12)
    drifted["module.image_encoder.vision_model.embeddings.position_ids"] = torch.arange(5)
    wanted = {n: t.shape for n, t in flat.items()}
    assert_same(reconcile(drifted, wanted, "drifted"), flat)


# Round trips


def test_flat_checkpoint_round_trip(imported: Path, flat: Flat, tmp_path: Path) -> None:
    run_export(imported, tmp_path / "again.pt")
    assert_same(torch.load(tmp_path / "again.pt", weights_only=True), flat)
    run_export(imported, tmp_path / "bare.pt", bare=True)
    without = {n: t for n, t in flat.items() if not n.startswith("image_encoder.")}
    assert_same(torch.load(tmp_path / "bare.pt", weights_only=True), without)


def test_a_merged_checkpoint_without_image_encoder_and_in_half_precision(
    flat: Flat, clip_folder: Path, tmp_path: Path
) -> None:
    half = {n: t.half() for n, t in flat.items() if not n.startswith("image_encoder.")}
    write_safetensors(half, tmp_path / "merged.safetensors")
    run_import(tmp_path / "merged.safetensors", clip_folder, tmp_path / "base")
    assert_same(flat_tensors(tmp_path / "base"), half)


def test_imported_model_computes_what_its_weights_say(imported: Path, flat: Flat) -> None:
    model, autoencoder = load_base_model(imported), load_autoencoder(imported)
    stock = AutoencoderKLTemporalDecoder(**{k: v for k, v in autoencoder.vae.config.items() if not k.startswith("_")})
    stock.load_state_dict({n.removeprefix("vae."): t for n, t in flat.items() if n.startswith("vae.")})
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = stock.eval().encode(images).latent_dist.mean * TINY.autoencoder.scaling_factor
        assert torch.allclose(autoencoder.encode(images), expected, atol=1e-6)
    clip = CLIPTextModelWithProjection(model.text_encoder.clip.config)
    clip.load_state_dict({n.removeprefix("text_encoder."): t for n, t in flat.items() if n.startswith("text_encoder.")})
    ids = model.text_encoder.tokenizer(
        SENTENCES, padding="max_length", max_length=12, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = clip.eval()(input_ids=ids["input_ids"]).text_embeds
    assert torch.allclose(model.encode_instructions(SENTENCES), expected, atol=1e-6)
    assert model.statistics == CTRL_WORLD_STATISTICS and model.views == VIEWS


@pytest.fixture
def libraries_folders(tokenizer, clip_folder: Path, tmp_path: Path) -> tuple[Path, Path]:
    """SVD's and CLIP's folders at tiny size, as diffusers and transformers save them."""
    torch.manual_seed(1)
    with torch.device("cpu"):
        model = WorldModel(TINY, VIEWS, CTRL_WORLD_STATISTICS, InstructionEncoder(TINY.text_encoder, tokenizer))
    config = {k: v for k, v in model.unet.config.items() if not k.startswith("_")}
    UNetSpatioTemporalConditionModel(**config).save_pretrained(tmp_path / "svd" / "unet")
    Autoencoder(TINY.autoencoder).vae.save_pretrained(tmp_path / "svd" / "vae")
    vision = vision_model()
    vision.save_pretrained(tmp_path / "svd" / "image_encoder")
    text = model.text_encoder.clip.config.to_dict()
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision.config.to_dict(), projection_dim=16))
    clip.save_pretrained(clip_folder)
    return tmp_path / "svd", clip_folder


def test_folders_of_diffusers_and_transformers(libraries_folders: tuple[Path, Path], tmp_path: Path) -> None:
    svd, clip = libraries_folders
    run_import(svd, clip, tmp_path / "base")
    model = load_base_model(tmp_path / "base")
    assert model.config.unet == TINY.unet and model.config.text_encoder == TINY.text_encoder
    unet = load_file(svd / "unet" / "diffusion_pytorch_model.safetensors")
    assert_same(dict(model.unet.state_dict()), unet)
    text = {n: t for n, t in load_file(clip / "model.safetensors").items() if n.startswith("text_")}
    assert_same(dict(model.text_encoder.clip.state_dict()), text)

    run_export(tmp_path / "base", tmp_path / "out", "folders")
    assert_same(load_file(tmp_path / "out" / "unet" / "diffusion_pytorch_model.safetensors"), unet)
    assert_same(
        dict(CLIPVisionModelWithProjection.from_pretrained(tmp_path / "out" / "image_encoder").state_dict()),
        dict(CLIPVisionModelWithProjection.from_pretrained(svd / "image_encoder").state_dict()),
    )
    stock = UNetSpatioTemporalConditionModel.from_pretrained(tmp_path / "out" / "unet")
    assert_same(dict(stock.state_dict()), unet)
    AutoencoderKLTemporalDecoder.from_pretrained(tmp_path / "out" / "vae")
    assert_same(dict(CLIPTextModelWithProjection.from_pretrained(tmp_path / "out" / "text_encoder").state_dict()), text)


def test_older_clip_folder_with_a_pickle(libraries_folders: tuple[Path, Path], tmp_path: Path) -> None:
    svd, clip = libraries_folders
    tensors = load_file(clip / "model.safetensors")
    tensors["text_model.embeddings.position_ids"] = torch.arange(12)[None]
    (clip / "model.safetensors").unlink()
    torch.save(tensors, clip / "pytorch_model.bin")
    run_import(svd, clip, tmp_path / "base")
    assert torch.equal(
        load_base_model(tmp_path / "base").text_encoder.clip.text_projection.weight, tensors["text_projection.weight"]
    )


# Adapters


def trained(base: Path, folder: Path, targets: str) -> tuple[Policy, PostTrainingConfig]:
    settings = PostTrainingConfig(lora=AdapterConfig(rank=4, alpha=8.0, targets=targets))
    policy = Policy(load_base_model(base), settings.lora, train_action_encoder=True, seed=0)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for weight in policy.theta.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    weights = {n: w.detach() for n, w in policy.theta.items()}
    save_adapter(weights, policy.base, base, folder, [settings], seed=0)
    return policy, settings


@pytest.mark.parametrize("targets", ["attention", "linear_and_convolution"])
def test_merged_model_samples_as_base_with_adapter(imported: Path, tmp_path: Path, targets: str) -> None:
    policy, _ = trained(imported, tmp_path / "post_trained", targets)
    run_export(tmp_path / "post_trained", tmp_path / "merged.pt", base=imported)
    run_import(tmp_path / "merged.pt", imported, tmp_path / "merged")
    given, noise = condition(policy.model)
    sampler = SamplerConfig(steps=3)
    live = policy.model.sample(given, noise, sampler)  # peft's layers, not merged
    assert torch.allclose(load_base_model(tmp_path / "merged").sample(given, noise, sampler), live, atol=1e-4)
    assert torch.allclose(
        load_world_model(tmp_path / "post_trained", imported).sample(given, noise, sampler), live, atol=1e-4
    )
    assert not torch.allclose(policy.base.sample(given, noise, sampler), live, atol=1e-2)


@pytest.mark.parametrize("targets", ["attention", "linear_and_convolution"])
def test_merge_and_unmerge_are_inverse_and_pefts(imported: Path, tmp_path: Path, targets: str) -> None:
    policy, settings = trained(imported, tmp_path / "post_trained", targets)
    base, merged = flat_tensors(imported), merged_tensors(tmp_path / "post_trained", imported)
    adapter = {n.replace(f".{ADAPTER}.weight", ".weight"): w.detach() for n, w in policy.theta.items() if ".lora_" in n}
    restored = apply_adapter(merged, adapter, -settings.lora.alpha / settings.lora.rank)
    touched = [n for n in base if n.startswith("unet.") and not torch.equal(base[n], merged[n])]
    assert len(touched) == len(adapter) // 2
    for name in touched:
        assert torch.allclose(restored[name], base[name], atol=1e-6)
    layers = dict(policy.model.named_modules())
    for name in touched:
        layer = layers[name.removesuffix(".weight")]
        layer.merge()
        assert torch.allclose(layer.base_layer.weight, merged[name], atol=1e-6)
        layer.unmerge()
        assert torch.allclose(layer.base_layer.weight, base[name], atol=1e-6)


def test_adapter_alone_loads_with_peft_and_carries_a_card(imported: Path, tmp_path: Path) -> None:
    trained(imported, tmp_path / "post_trained", "attention")
    run_export(tmp_path / "post_trained", tmp_path / "adapter", "adapter", base=imported)
    card = (tmp_path / "adapter" / "README.md").read_text()
    manifest = json.loads((tmp_path / "adapter" / "manifest.json").read_text())
    assert manifest["parents"]["base"] in card and "rank 4, alpha 8" in card and "{" not in card
    merged = load_world_model(tmp_path / "adapter", imported)
    with_peft = PeftModel.from_pretrained(load_base_model(imported).unet, tmp_path / "adapter").merge_and_unload()
    for name, tensor in merged.unet.state_dict().items():
        assert torch.allclose(with_peft.state_dict()[name], tensor, atol=1e-6), name


def test_the_card_says_what_is_known_and_nothing_more(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _, settings = trained(imported, tmp_path / "post_trained", "attention")
    known = dataclasses.replace(
        Params(),
        post_training=settings,
        episodes=EpisodesConfig(path="/data/of/somebody/droid_1.0.1"),
        base_checkpoint=BaseCheckpointConfig(source="hf", location="ctrl-world", revision="a" * 40),
    )

    def card(given: Params) -> str:
        export_adapter(tmp_path / "post_trained", tmp_path / "adapter", given)
        return (tmp_path / "adapter" / "README.md").read_text()

    text = card(known)
    assert "\nbase_model: yjguo/Ctrl-World\n" in text and f"`yjguo/Ctrl-World` at `{'a' * 40}`" in text
    assert "`droid_1.0.1`" in text and "/data/of" not in text and "192 x 320" in text
    assert "license: other" in text and "table_1.json" not in text
    (tmp_path / "results" / "metrics").mkdir(parents=True)
    (tmp_path / "results" / "metrics" / "table_1.json").write_text(json.dumps({"wrist": {"post_trained": {"ssim": 0.5}}}))
    (tmp_path / "results" / "metrics" / "table_2.json").write_text(json.dumps({"wrist": {"base": {"ssim": 0.5}}}))
    text = card(known)
    assert "`results/metrics/table_1.json`" in text and "`post_trained`" in text and "table_2" not in text

    here = card(dataclasses.replace(known, base_checkpoint=BaseCheckpointConfig(source="file", location=str(imported))))
    assert "base_model:" not in here and str(imported) not in here
    simulated = card(dataclasses.replace(known, episodes=EpisodesConfig(source="simulate", path="data/episodes", count=128)))
    assert "128 episodes" in simulated and "tabletop" in simulated
    other = card(dataclasses.replace(known, post_training=PostTrainingConfig()))  # params.yaml has changed since it was trained
    assert other.count("not stated") == 2 and "droid_1.0.1" not in other and "base_model:" not in other


def test_the_controls_card_holds_for_the_parameters_that_made_it(imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are three sections: a change of any of them, and the card states nothing."""
    monkeypatch.chdir(tmp_path)
    policy, settings = trained(imported, tmp_path / "made", "attention")
    known = dataclasses.replace(Params(), post_training=settings)
    weights = {n: w.detach() for n, w in policy.theta.items()}
    save_adapter(weights, policy.base, imported, tmp_path / "teacher_forced", control_sections(known), seed=0)

    def card(**sections: object) -> str:
        export_adapter(tmp_path / "teacher_forced", tmp_path / "adapter", dataclasses.replace(known, **sections))
        return (tmp_path / "adapter" / "README.md").read_text()

    assert "not stated" not in card() and "192 x 320" in card()
    for other in ({"control": ControlConfig(batch=4)}, {"base_training": BaseTrainingConfig(sigma_std=1.0)}):
        assert card(**other).count("not stated") == 2
    assert card(post_training=PostTrainingConfig()).count("not stated") == 2


def test_adapter_of_another_base_and_export_of_none(
    imported: Path, flat: Flat, clip_folder: Path, tmp_path: Path
) -> None:
    trained(imported, tmp_path / "post_trained", "attention")
    other = {n: t + 1 for n, t in flat.items()}
    write_pickle(other, tmp_path / "other.pt")
    run_import(tmp_path / "other.pt", clip_folder, tmp_path / "other")
    with refused(tmp_path / "post_trained", tmp_path / "other"):
        run_export(tmp_path / "post_trained", tmp_path / "merged.pt", base=tmp_path / "other")
    with refused(imported):
        export_adapter(imported, tmp_path / "adapter", tiny_params())
    assert not (tmp_path / "merged.pt").exists() and not (tmp_path / "adapter").exists()


# What is refused


class Malicious:
    def __reduce__(self):
        return (open, ("pwned", "w"))


@pytest.mark.parametrize("save", [torch.save, lambda value, path: path.write_bytes(pickle.dumps(value))])
def test_a_pickle_that_would_run_code_is_refused(
    flat: Flat, clip_folder: Path, tmp_path: Path, save, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save({**flat, "extra": Malicious()}, tmp_path / "evil.pt")
    with refused(tmp_path / "evil.pt"):
        run_import(tmp_path / "evil.pt", clip_folder, tmp_path / "base")
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "base").exists()


def test_wrong_keys_are_named_at_once(flat: Flat, clip_folder: Path, tmp_path: Path) -> None:
    wrong = dict(flat)
    del wrong["unet.conv_in.weight"]
    wrong["unet.lora_leftover"] = torch.zeros(1)
    wrong["action_encoder.action_encode.0.weight"] = torch.zeros(32, 10)
    write_pickle(wrong, tmp_path / "wrong.pt")
    with refused("wrong.pt", "unet.conv_in.weight", "unet.lora_leftover", "action_encode.0.weight"):
        run_import(tmp_path / "wrong.pt", clip_folder, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def test_damaged_files(flat: Flat, tmp_path: Path) -> None:
    whole = tmp_path / "whole.pt"
    write_pickle(flat, whole)
    write_safetensors(flat, tmp_path / "whole.safetensors")
    for suffix in (".pt", ".safetensors"):
        cut = tmp_path / f"cut{suffix}"
        data = whole.with_suffix(suffix).read_bytes()
        cut.write_bytes(data[: len(data) // 2])
        with refused(cut):
            map_tensors(cut)
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    with refused(tmp_path / "other.pt"):
        map_tensors(tmp_path / "other.pt")
    torch.save({"model": flat}, tmp_path / "nested.pt")
    with refused(tmp_path / "nested.pt"):
        map_tensors(tmp_path / "nested.pt")
    with refused(tmp_path / "absent.pt"):
        map_tensors(tmp_path / "absent.pt")


def test_missing_tokenizer_and_wrong_statistics(flat: Flat, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with refused("tokenizer.json"):
        import_tensors(flat, TINY, VIEWS, CTRL_WORLD_STATISTICS, empty, tmp_path / "x.pt", tmp_path / "base")
    (tmp_path / "stat.json").write_text(json.dumps({"state_01": [0.0] * 6, "state_99": [1.0] * 7}))
    with refused(tmp_path / "stat.json", 6, 7):
        read_statistics(tmp_path / "stat.json")
    (tmp_path / "stat.json").write_text(json.dumps({"mean": [0.0]}))
    with refused(tmp_path / "stat.json", "state_01"):
        read_statistics(tmp_path / "stat.json")


def test_a_folder_that_is_not_svds(flat: Flat, clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    with refused(folder, "unet/config.json", "persistworld fetch svd"):
        run_import(folder, clip_folder, tmp_path / "base")
    write_pickle(flat, folder / "checkpoint-1.pt")
    with refused(folder / "checkpoint-1.pt"):
        run_import(folder, clip_folder, tmp_path / "base")


def test_streamed_safetensors_are_what_safetensors_reads(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 5).t(),  # not contiguous
        "b": torch.randn(7).to(torch.bfloat16),
        "c": torch.tensor(3),
        "d": torch.zeros(0, 4),
        "e": torch.tensor([True, False, True]),
        "f": torch.randn(2, 2).half(),
    }
    write_safetensors(tensors, tmp_path / "t.safetensors")
    assert_same(load_file(tmp_path / "t.safetensors"), tensors)
    assert_same(map_tensors(tmp_path / "t.safetensors"), tensors)
