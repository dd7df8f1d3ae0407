"""U-Net: sizes, parity with segmentation-models-pytorch, and starting points."""

from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import segmentation_models_pytorch as smp
import timm
import torch

from segdet.errors import InputError
from segdet.metadata import DataSource, Metadata
from segdet.models import weights
from segdet.models.common import normalise
from segdet.models.registry import build_model
from segdet.models.unet import to_one_channel

SMALL = {"decoder_channels": [32, 24, 16, 12, 8]}


def _metadata(**changes: object) -> Metadata:
    return Metadata(
        **{
            "schema": 1, "task": "segmentation", "arch": "unet", "backbone": "test_efficientnet", "options": SMALL,
            "classes": ["crack"], "imgsz": 64, "mean": [0.5] * 3, "std": [0.5] * 3,
            "data": DataSource(name="x", sha256="0"), "version": "0", **changes,
        }  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.mark.parametrize("size", [(64, 64), (97, 131), (1, 1), (33, 7)])
@pytest.mark.parametrize("classes", [["crack"], ["a", "b", "c"]])
def test_logits_have_the_size_of_the_input(size: tuple[int, int], classes: list[str]) -> None:
    model, _ = build_model("unet", "test_efficientnet", classes, "none", SMALL)
    logits = model.eval()(torch.randn(2, 3, *size))
    assert logits.shape == (2, 1 if len(classes) == 1 else 4, *size)


def test_equal_to_smp_with_the_same_weights() -> None:
    """smp's `tu-` encoders are timm's, so its state dict fits after one renaming."""
    theirs = smp.Unet("tu-resnet18", encoder_weights=None, classes=1).eval()
    ours, _ = build_model("unet", "resnet18", ["crack"], "none")
    for module in theirs.modules():  # statistics that matter, else batch norm hides mistakes
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(2, 3, 96, 160)
    with torch.inference_mode():
        expected = theirs(x)  # the decoder's sums are taken in another order (test_upconv.py has them in float64)
        assert float((ours.eval()(x) - expected).abs().max()) < 1e-5 * float(expected.abs().max())


def test_one_training_step_lowers_the_loss() -> None:
    from segdet.training.losses import loss_named

    torch.manual_seed(0)
    model, _ = build_model("unet", "test_efficientnet", ["crack"], "none", SMALL)
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    x, target = torch.randn(2, 3, 64, 64), (torch.rand(2, 64, 64) * 255).to(torch.uint8)
    losses = []
    for _ in range(8):
        loss = loss_named("bce+dice", 1)(model(x), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss))
    assert losses[-1] < losses[0]


def test_normalise_is_the_formula() -> None:
    images = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (images.float() / 255 - torch.tensor(mean)) / torch.tensor(std)
    assert torch.allclose(normalise(images, mean, std), expected.permute(0, 3, 1, 2), atol=1e-5)


def test_pip_weights_are_really_loaded() -> None:
    backbone = build_model("unet", "efficientnet_lite0", ["crack"], "imagenet")[1]
    again = build_model("unet", "efficientnet_lite0", ["crack"], "imagenet")[1]
    random = build_model("unet", "efficientnet_lite0", ["crack"], "none")[1]
    first = "conv_stem.weight"
    assert torch.equal(backbone.model.state_dict()[first], again.model.state_dict()[first])
    assert not torch.equal(backbone.model.state_dict()[first], random.model.state_dict()[first])
    variances = backbone.model.state_dict()["bn1.running_var"]
    assert not torch.equal(variances, torch.ones_like(variances))


def test_weights_that_cannot_be_had_are_an_error_with_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match=r"resnet18.*weights=PATH.*weights=none.*efficientnet_lite0"):
        build_model("unet", "resnet18", ["crack"], "imagenet")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [("resnt18", 'did you mean "resnet18"'), ("tiny_vit", "did you mean")],
)
def test_unusable_backbones_say_what_to_use(backbone: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model("unet", backbone, ["crack"], "none")


def test_unknown_architecture_suggests() -> None:
    with pytest.raises(InputError, match='did you mean "unet"'):
        build_model("unett", None, ["crack"])


def test_saved_weights_come_back_exactly(tmp_path: Path) -> None:
    model, _ = build_model("unet", "test_efficientnet", ["crack"], "none", SMALL)
    weights.save(tmp_path / "w.safetensors", model.state_dict(), _metadata(threshold=0.25))
    loaded, metadata = weights.load(tmp_path / "w.safetensors")
    assert metadata.threshold == 0.25 and metadata.classes == ["crack"]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "junk.safetensors").write_bytes(b"not weights")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    for name in ("junk.safetensors", "foreign.safetensors"):
        with pytest.raises(InputError, match=name):
            weights.load(tmp_path / name)


@pytest.mark.parametrize("prefix", ["", "model.", "module."])
def test_a_backbone_can_start_from_a_state_dict(tmp_path: Path, prefix: str) -> None:
    source = timm.create_model("test_efficientnet", pretrained=False)
    torch.save({prefix + name: tensor for name, tensor in source.state_dict().items()}, tmp_path / "b.pth")
    model, backbone = build_model("unet", "test_efficientnet", ["crack"], "none", SMALL)
    report = weights.start_from(tmp_path / "b.pth", model, backbone)
    assert "of the backbone loaded" in report
    assert torch.equal(backbone.model.state_dict()["conv_stem.weight"], source.state_dict()["conv_stem.weight"])


def test_starting_from_something_else_is_an_error(tmp_path: Path) -> None:
    model, backbone = build_model("unet", "test_efficientnet", ["crack"], "none", SMALL)
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "other.pth")
    with pytest.raises(InputError, match="another backbone"):
        weights.start_from(tmp_path / "other.pth", model, backbone)
    torch.save({"code": __import__("pathlib").Path}, tmp_path / "evil.pth")  # a global that weights_only refuses
    with pytest.raises(InputError, match="cannot be read safely"):
        weights.start_from(tmp_path / "evil.pth", model, backbone)


@pytest.mark.parametrize("channels", [3, 16])
def test_to_one_channel_is_the_same_convolution(channels: int) -> None:
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(channels, 1, 3, padding=1).double()
    x = torch.randn(2, channels, 9, 7, dtype=torch.float64)
    assert torch.allclose(to_one_channel(x, conv), conv(x), rtol=0, atol=1e-12)
