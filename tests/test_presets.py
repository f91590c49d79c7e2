"""Every preset and every option of every group composes, and what it names can be built."""

from __future__ import annotations

import hydra
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from clothseg import entry
from clothseg.models.backbones import BACKBONES, build_encoder
from clothseg.settings import PrepareSettings, TrainSettings, check

CONF = entry.config_folder()
GROUPS = ("augmentation", "backbone", "dataset", "decoder", "loss", "optimizer", "schedule", "split")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose(*overrides: str, config: str = "train"):
    with hydra.initialize_config_dir(str(CONF)):
        return hydra.compose(config, [*overrides])


def build(cfg) -> None:
    """Everything that `cfg` names, with random weights and no data."""
    from clothseg.models.unet import build_unet

    settings = check(cfg, TrainSettings)
    instantiate(cfg.dataset, _execution_whitelist_=entry.TARGETS)
    augmentation = instantiate(cfg.augmentation, _execution_whitelist_=entry.TARGETS)
    assert augmentation.variants[0] == "original"
    encoder = build_encoder(
        settings.backbone.name,
        image_size=settings.size,
        weights=None,
        input_scaling=settings.backbone.input_scaling,
    )
    decoder = instantiate(cfg.decoder, _execution_whitelist_=entry.TARGETS)
    model = build_unet(encoder, decoder=decoder, classes=59, name="unet")
    phase = next(iter(cfg.schedule.phases.values()))
    optimizer = instantiate(phase.optimizer, _execution_whitelist_=entry.TARGETS)()
    model.compile(optimizer=optimizer, loss=instantiate(cfg.loss, _execution_whitelist_=entry.TARGETS))
    assert model.output_shape == (None, *settings.size, 59)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_builds(name):
    cfg = compose(f"experiment={name}")
    assert cfg.name == name
    build(cfg)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_says_how_to_run_it_how_long_it_takes_and_what_to_expect(name):
    header = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    for part in (f"# Run:      python -m clothseg.train experiment={name}", "# Duration: ", "# Expect:   "):
        assert part in header


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in options(group)])
def test_every_option_of_every_group_composes(group, name):
    extra = ["dataset.root=data"] if (group, name) == ("dataset", "kaggle") else []
    check(compose(f"{group}={name}", *extra), TrainSettings)


def test_there_is_an_option_for_every_backbone_and_no_other():
    assert set(options("backbone")) == set(BACKBONES)
    assert all(OmegaConf.load(CONF / "backbone" / f"{name}.yaml").name == name for name in BACKBONES)


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_optimizer_can_be_made(name):
    cfg = compose(f"optimizer={name}", "optimizer.learning_rate=0.25")
    optimizer = instantiate(cfg.schedule.phases.frozen.optimizer, _execution_whitelist_=entry.TARGETS)()
    assert float(optimizer.learning_rate) == 0.25


def test_prepare_composes():
    check(compose(config="prepare"), PrepareSettings)


def test_with_nothing_chosen_it_is_the_articles_experiment():
    cfg = compose()
    assert (cfg.dataset.subset, cfg.backbone.name, cfg.backbone.weights) == ("article", "densenet121", "imagenet")
    assert (cfg.optimizer._target_, cfg.optimizer.learning_rate) == ("keras.optimizers.RMSprop", 0.001)
    assert (cfg.batch_size, list(cfg.image_size), len(cfg.augmentation.copies)) == (64, [128, 128], 7)
    phases = list(cfg.schedule.phases.values())
    assert [(phase.epochs, phase.encoder, phase.steps_per_epoch) for phase in phases] == [
        (20, "frozen", 12),
        (20, "trainable", 12),
    ]
    assert compose("experiment=article") == cfg


def test_every_defect_of_the_article_is_an_option_of_its_own():
    sound, printed = (entry.flatten(compose(f"experiment={name}")) for name in ("article", "article_as_printed"))
    assert {key for key in sound if sound[key] != printed[key]} == {
        "name",
        "dataset.pairing",
        "prepare.label_resize",
        "augmentation.copies",
        "augmentation.label_resize",
        "augmentation.shuffle_buffer",
        "backbone.input_scaling",
        "schedule.phases.frozen.validation_steps",
        "schedule.phases.fine_tuning.validation_steps",
    }
