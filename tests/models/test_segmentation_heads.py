"""U-Net and FCN-32s: right by numbers, cut into stages, and frozen where the matrix says so."""

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models._api import register_model
from torchvision.models.vgg import VGG, make_layers

from bench.core.errors import InputError
from bench.data.dataset import (
    NO_LABEL,
    UNASSIGNED,
    Dataset,
    Split,
)
from bench.models.factory import build, with_head
from bench.models.fully_convolutional import convolutionise, fcn_backbone
from bench.models.heads.segmentation import FCN32s, UNet, bilinear
from bench.models.stages import drop_behind, map_taps
from bench.strategies.registry import STRATEGIES
from bench.study.schema import (
    Augmentation,
    Head,
    Source,
    Target,
    Training,
)
from bench.training.cached_features import Features
from bench.training.execution import Execution
from bench.training.feature_store import FeatureStore
from bench.training.inputs import Images
from bench.training.loop import train
from bench.training.problem import TrainingProblem, predict
from bench.training.targets.segmentation import Masks
from tests.test_contract import train_and_check_what_moves

SIDE, CLASSES = 32, 3
CPU = Execution("cpu", "fp32")


def tiny(norm):
    """A VGG with few channels: FCN-32s pads any image by 198 pixels, and VGG16 would take minutes."""
    layers = make_layers([4, "M", 8, "M", 8, "M", 8, "M", 8, "M"], batch_norm=norm)
    model = VGG(layers, num_classes=5, init_weights=False)
    hidden = [nn.Linear(8 * 7 * 7, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 16), nn.ReLU(True)]
    model.classifier = nn.Sequential(*hidden, nn.Linear(16, 5))
    return model


def tiny_vgg(weights=None, progress=True):
    return tiny(norm=False)


def tiny_vgg_bn(weights=None, progress=True):
    return tiny(norm=True)


for builder in (tiny_vgg, tiny_vgg_bn):
    builder.__module__ = "torchvision.models.vgg"
    register_model()(builder)

NETWORKS = {
    "unet": "timm/tf_efficientnet_lite0",
    "unet_vgg": "torchvision/tiny_vgg_bn",
    "fcn32s": "torchvision/tiny_vgg",
}


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory):
    """A file of weights for each model, standing for pretrained ones: the way of a local file."""
    folder = tmp_path_factory.mktemp("weights")

    def source(network):
        name = NETWORKS[network]
        path = folder / f"{network}.pth"
        if not path.exists():
            torch.manual_seed(99)
            library, _, model = name.partition("/")
            import timm

            made = timm.create_model(model) if library == "timm" else torchvision.models.get_model(model)
            torch.save(made.state_dict(), path)
        return Source(model=name, weights=str(path), mean=(0.5,) * 3, std=(0.5,) * 3)

    return source


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    masks = np.kron(rng.integers(0, CLASSES, (16, 4, 4)), np.ones((8, 8))).astype(np.uint8)
    images = (masks[..., None] * 60 + rng.integers(0, 60, (16, SIDE, SIDE, 3))).astype(np.uint8)
    masks[:, :2] = NO_LABEL
    names = tuple(map(str, range(16)))
    parts = np.full(16, UNASSIGNED, np.int8)
    return Dataset("noise", ("a", "b", "c"), images, np.zeros(16, int), parts, names, "d" * 64, masks=masks)


def problem_for(strategy, source, dataset, kind, store=None):
    strategy = STRATEGIES[strategy]
    model = build(source, Head(kind=kind), CLASSES, SIDE, strategy.start, seed=5)
    plan = strategy.plan(len(model.stages), strategy.defaults)
    target = Target(data="noise", image_size=SIDE, augmentation=Augmentation(views=2, rotation=10))
    inputs = images = Images(dataset, target, (0.5,) * 3, (0.5,) * 3, "cpu")
    forward = model
    parts = Split(np.arange(8), np.arange(8, 12), np.arange(12, 16))
    if store and plan.frozen_prefix:
        forward = model.suffix(plan.frozen_prefix, images.evaluate(parts.train[:2]))
        assert forward is not None
        inputs = Features(images, model.prefix(plan.frozen_prefix), {"model": source.model}, store)
        assert inputs.prepare_training(parts.train)
        assert inputs.prepare_evaluation(parts.val)
    masks = Masks(dataset, target, "cpu")
    training = Training(epochs=2, batch_size=4, dice=0.5)
    parts = (parts.train, parts.val)
    return TrainingProblem(
        model, forward, plan, inputs, masks, *parts, training, 1e-3, 0.01, 3, CPU, "mean_iou"
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("strategy", ["scratch", "feature_extractor", "partial", "full", "discriminative"])
def test_frozen_stages_are_bit_identical_and_trained_ones_move(strategy, network, random_weights, dataset):
    train_and_check_what_moves(
        problem_for(strategy, random_weights(network), dataset, network.partition("_")[0])
    )


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("strategy", ["feature_extractor", "partial"])
def test_a_cached_encoder_gives_what_the_whole_network_gives(
    strategy, network, random_weights, dataset, tmp_path
):
    torch.set_num_threads(2)  # with one, batches of other sizes round otherwise: batch norm makes that large
    kind = network.partition("_")[0]
    through = problem_for(strategy, random_weights(network), dataset, kind)
    stored = problem_for(strategy, random_weights(network), dataset, kind, FeatureStore(tmp_path))
    slow, fast = train(through), train(stored)
    for one, other in zip(slow.curve, fast.curve, strict=True):
        for name in ("train/loss", "val/loss", "val/mean_iou"):
            assert other[name] == pytest.approx(one[name], rel=1e-3, abs=1e-3)
    losses = (predict(problem, problem.val)[:, 0] for problem in (through, stored))
    assert torch.allclose(*losses, rtol=1e-3)


def test_vgg_is_cut_before_its_poolings():
    for name, ends in (("vgg13_bn", (6, 13, 20, 27, 34)), ("vgg16_bn", (6, 13, 23, 33, 43))):
        backbone = torchvision.models.get_model(name, init_weights=False).eval()
        example = torch.zeros(2, 3, 64, 64)
        taps = map_taps(backbone, example)
        assert taps == tuple(f"features.{end - 1}" for end in ends)
        assert all(isinstance(backbone.features[end], nn.MaxPool2d) for end in ends)
        drop_behind(backbone, taps[-1], example)
        assert not any(True for _ in backbone.classifier.parameters())


def test_unet_on_vgg16_has_a_bottleneck_of_1024_channels_and_five_skip_connections():
    settings = Head(kind="unet", bottleneck=1024, decoder_channels=(512, 256, 128, 64, 32))
    head = UNet((64, 128, 256, 512, 512), CLASSES, settings, SIDE)
    assert head.bottleneck.weight.shape == (1024, 512, 1, 1)
    assert [block.conv1[0].in_channels for block in head.decoder.blocks] == [
        1024 + 512, 512 + 256, 256 + 128, 128 + 64, 64,
    ]  # fmt: skip
    maps = [torch.randn(2, c, SIDE >> n, SIDE >> n) for n, c in enumerate((64, 128, 256, 512, 512))]
    assert head(maps).shape == (2, CLASSES, SIDE, SIDE)


@pytest.mark.parametrize("encoder", ["tf_efficientnet_lite0", "resnet10t"])
def test_unet_is_that_of_segmentation_models_pytorch(encoder):
    """The same weights in smp's own U-Net, whose encoder is timm's `features_only`, give the same logits."""
    theirs = smp.Unet(f"tu-{encoder}", encoder_weights=None, classes=CLASSES).eval()
    source = Source(model=f"timm/{encoder}", mean=(0.5,) * 3, std=(0.5,) * 3)
    ours = build(source.model_copy(update={"weights": "default"}), Head(kind="unet"), CLASSES, 64, "he", 0)
    state = theirs.encoder.model.state_dict()
    assert state.keys() == ours.backbone.state_dict().keys()
    ours.backbone.load_state_dict(state)
    ours.head.decoder.load_state_dict(theirs.decoder.state_dict())
    ours.head.classifier.load_state_dict(theirs.segmentation_head.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), atol=1e-4)


@pytest.mark.parametrize("name", ["alexnet", pytest.param("vgg16", marks=pytest.mark.slow), "tiny_vgg"])
def test_a_convolutionised_classifier_gives_the_same_scores(name):
    classifier = torchvision.models.get_model(name).eval()
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        scores = classifier(images)
        maps = convolutionise(classifier).eval()(images)
        larger = convolutionise(classifier).eval()(torch.randn(1, 3, 320, 288))
    assert maps.shape == (*scores.shape, 1, 1)
    assert torch.allclose(maps[..., 0, 0], scores, rtol=1e-4, atol=1e-5)
    assert larger.shape[2] > 1
    assert larger.shape[3] > 1


def test_what_has_no_fully_connected_head_is_refused():
    with pytest.raises(InputError, match="ResNet has no fully connected head"):
        convolutionise(torchvision.models.resnet18())
    damaged = tiny_vgg()
    damaged.classifier[0] = nn.Linear(100, 16)
    with pytest.raises(InputError, match="100 inputs"):
        convolutionise(damaged)


def test_bilinear_weights_upsample_a_ramp_exactly():
    up = nn.ConvTranspose2d(2, 2, 64, 32, bias=False)
    with torch.no_grad():
        up.weight.copy_(bilinear(2, 64))
    ramp = torch.arange(6.0)[:, None] * 3 + torch.arange(5.0) * 7
    maps = torch.stack([ramp, ramp.flip(0)])[None]
    with torch.no_grad():
        raised = up(maps)
    inner = functional.interpolate(maps, scale_factor=32, mode="bilinear")[..., 16:-16, 16:-16]
    assert torch.allclose(raised[..., 32:-32, 32:-32], inner, atol=1e-4)
    steps = inner.diff(dim=2)
    assert torch.allclose(steps, torch.tensor([3.0, -3.0]).view(1, 2, 1, 1) / 32, atol=1e-4)


@pytest.mark.parametrize("side", [16, 33, 96, 224, 500])
def test_fcn_32s_covers_images_of_any_size(side):
    backbone = fcn_backbone(tiny_vgg()).eval()
    head = FCN32s(16, CLASSES, Head(kind="fcn32s"), side)
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, side, side))
        assert head(features).shape == (1, CLASSES, side, side)
    assert backbone.features[0].padding == (100, 100)


def test_fcn_32s_of_vgg16_is_that_of_the_paper():
    with torch.device("meta"):
        backbone = fcn_backbone(torchvision.models.vgg16())
    fc6, fc7 = (m for m in backbone.get_submodule("classifier") if isinstance(m, nn.Conv2d))
    assert fc6.weight.shape == (4096, 512, 7, 7)
    assert fc7.weight.shape == (4096, 4096, 1, 1)
    head = FCN32s(4096, 21, Head(kind="fcn32s"), 224)
    assert head.score.weight.shape == (21, 4096, 1, 1)
    assert not head.score.weight.any()
    assert head.upscore.weight.shape == (21, 21, 64, 64)


def test_a_model_without_maps_of_several_resolutions_is_refused():
    source = Source(model="timm/vit_tiny_patch16_224", mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match="no feature maps of several resolutions"):
        build(source, Head(kind="unet"), CLASSES, 224, "he", 0)


def test_heads_on_one_encoder_are_drawn_as_in_build(random_weights):
    source = random_weights("unet")
    model = build(source, Head(kind="unet"), CLASSES, SIDE, "pretrained", 1)
    own = with_head(model, Head(kind="unet"), CLASSES, SIDE, 7)
    fresh = build(source, Head(kind="unet"), CLASSES, SIDE, "he", 7)
    assert all(torch.equal(a, b) for a, b in zip(own.head.parameters(), fresh.head.parameters(), strict=True))
    assert own.backbone is model.backbone


def test_weights_that_cannot_be_downloaded_are_named():
    source = Source(model="timm/resnet18.a1_in1k", mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(InputError, match=r"can't be downloaded.*local \.safetensors file"):
        build(source, Head(kind="unet"), CLASSES, SIDE, "pretrained", 0)
