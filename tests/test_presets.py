"""Every preset and every option of every group composes, and what it names can be built."""

from __future__ import annotations

import functools

import hydra
import numpy as np
import pytest
from hydra.utils import execution_whitelist
from omegaconf import OmegaConf

from clothseg import assemble, entry
from clothseg.errors import UserError
from clothseg.models.backbones import BACKBONES
from clothseg.settings import PrepareSettings, TrainSettings, check
from clothseg.sweeps import plugin

CONF = entry.config_folder()
GROUPS = (
    "augmentation", "backbone", "dataset", "decoder", "label_groups", "learning_rate", "loss", "optimizer", "sampling",
    "schedule", "splitting",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def sweeper():
    """Sweeps name what Hydra has to be told of."""
    plugin.register()


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def compose(*overrides: str, config: str = "train"):
    with hydra.initialize_config_dir(str(CONF)):
        return hydra.compose(config, [*overrides])


def build(cfg) -> None:
    """Everything that `cfg` names, as training builds it, with random weights and no data."""
    cfg.backbone.weights = None
    settings = check(cfg, TrainSettings)
    entry.build(cfg.dataset)
    variants = len(entry.build(cfg.augmentation).variants)
    pixels = np.ones((800, 59), int)
    entry.call(cfg.sampling, entry.build(cfg.sampling), pixels)
    networks = assemble.networks(cfg, settings, classes=59)
    for phase in assemble.phases(cfg, settings, networks=networks, photos=800, variants=variants):
        phase.network.model.compile(optimizer=phase.optimizer(1), loss=assemble.loss(cfg, pixels=pixels))
    assert [(None, *size, 3) for size in networks] == [network.model.input_shape for network in networks.values()]
    assert all(network.model.output_shape[-1] == 59 for network in networks.values())


@pytest.mark.parametrize(
    "name", [name for name in options("experiment") if not name.startswith(("ablation", "defect"))]
)
def test_every_experiment_builds(name):
    cfg = compose(f"experiment={name}")
    assert cfg.name == name
    with execution_whitelist(entry.TARGETS):
        build(cfg)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_says_how_to_run_it_how_long_it_takes_and_what_to_expect(name):
    header = (CONF / "experiment" / f"{name}.yaml").read_text(encoding="utf-8").split("\nname:")[0]
    for part in (f"# Run:      python -m clothseg.train experiment={name}", "# Duration: ", "# Expect:   "):
        assert part in header
    assert "?" not in header


def steps(series: str) -> list[str]:
    return [name for name in options("experiment") if name.startswith(f"{series}_")]


@functools.cache
def tags_of(name: str):
    return compose(f"experiment={name}").tracking.tags


@pytest.mark.parametrize("name", [*steps("ablation"), *steps("defect")])
def test_every_step_of_a_series_can_be_built_and_has_a_tag_of_its_own(name):
    cfg = compose(f"experiment={name}", "backbone.weights=null")
    settings = check(cfg, TrainSettings)
    with execution_whitelist(entry.TARGETS):
        for part in (cfg.augmentation, cfg.decoder, cfg.sampling, cfg.optimizer, cfg.learning_rate):
            entry.build(part)
        assemble.loss(cfg, pixels=np.ones((3, 59), int))
    others = steps(name.partition("_")[0])
    tags = [tags_of(other) for other in others]
    assert settings.name == name
    assert len({tag.series for tag in tags}) == 1 and len({tag.step for tag in tags}) == len(others) > 5


def test_steps_of_the_ablation_train_on_as_many_photos_as_each_other():
    seen = set()
    for name in steps("ablation"):
        settings = check(compose(f"experiment={name}"), TrainSettings)
        phases = settings.schedule.phases.values()
        assert {phase.steps_per_epoch for phase in phases} == {"photos"}
        seen.add(sum(phase.epochs for phase in phases))
    assert seen == {12}


@pytest.mark.parametrize(("group", "name"), [(group, name) for group in GROUPS for name in options(group)])
def test_every_option_of_every_group_composes(group, name):
    extra = ["dataset.root=data"] if group == "dataset" and name in ("kaggle", "folders") else []
    check(compose(f"{group}={name}", *extra), TrainSettings)


def test_there_is_an_option_for_every_backbone_and_no_other():
    assert set(options("backbone")) == set(BACKBONES)
    assert all(OmegaConf.load(CONF / "backbone" / f"{name}.yaml").name == name for name in BACKBONES)


@functools.cache
def tiny():
    """A network that nothing is trained with."""
    import keras

    from clothseg.models.unet import Network

    photo = keras.Input((32, 32, 3))
    encoder = keras.Model(photo, keras.layers.Conv2D(4, 1)(photo))
    model = keras.Model(photo, keras.layers.Conv2D(59, 1)(encoder(photo)))
    return Network(encoder, model, model)


A_STEP = ("epochs", "steps_per_epoch")


def phases(*overrides: str, photos: int = 800, variants: int = 7):
    cfg = compose(*overrides)
    cfg.backbone.weights = None
    settings = check(cfg, TrainSettings)
    with execution_whitelist(entry.TARGETS):
        networks = dict.fromkeys(assemble.sizes(settings), tiny())
        return assemble.phases(cfg, settings, networks=networks, photos=photos, variants=variants)


@pytest.mark.parametrize("name", options("optimizer"))
def test_every_optimizer_can_be_made_and_takes_its_learning_rate(name):
    frozen, tuned = phases(
        f"optimizer={name}", "optimizer.learning_rate=0.25", "schedule.phases.fine_tuning.learning_rate=0.125"
    )
    assert (float(frozen.optimizer(1).learning_rate), float(tuned.optimizer(1).learning_rate)) == (0.25, 0.125)


@pytest.mark.parametrize("name", options("learning_rate"))
def test_learning_rates_of_a_single_step_may_be_built(name):
    # Without a warm-up they are schedules of Keras's own, which Hydra has to let through.
    one = [f"schedule.phases.{phase}.{what}=1" for phase in ("frozen", "fine_tuning") for what in A_STEP]
    for phase in phases(f"learning_rate={name}", *one):
        assert float(phase.optimizer(1).learning_rate) > 0


def test_a_phase_can_have_an_optimizer_of_its_own():
    frozen, tuned = phases("+optimizer@schedule.phases.fine_tuning.optimizer=adam")
    assert type(frozen.optimizer(1)).__name__ == "RMSprop" and type(tuned.optimizer(1)).__name__ == "Adam"


def test_an_optimizer_that_does_not_take_its_options_is_told_before_training():
    with pytest.raises(UserError, match="of phase fine_tuning"):
        phases("+optimizer@schedule.phases.fine_tuning.optimizer=adam", "+schedule.phases.fine_tuning.optimizer.foo=1")


def test_phases_go_on_in_the_data_or_begin_a_new_pass():
    # The article: 20 epochs of 12 steps are two passes of 88 steps and 64 more.
    assert [phase.first_step for phase in phases()] == [0, 240]
    assert [phase.first_step for phase in phases("schedule.restart_data=true")] == [0, 264]


def test_null_steps_are_whole_passes():
    # 700 examples in batches of 64
    assert [phase.steps_per_epoch for phase in phases("schedule=one_phase", photos=100)] == [11]


@pytest.mark.parametrize(("batch_size", "steps"), [(16, 50), (64, 12), (128, 6), (900, 1)])
def test_the_articles_epoch_is_as_many_examples_as_there_are_photos_whatever_the_batch_size(batch_size, steps):
    assert [phase.steps_per_epoch for phase in phases(f"batch_size={batch_size}")] == [steps, steps]


@pytest.mark.parametrize(("batch_size", "devices", "works"), [(4, 1, True), (4, 2, False), (5, 2, True), (3, 2, True)])
def test_a_last_batch_that_leaves_a_device_without_an_example_is_refused(batch_size, devices, works):
    settings = check(compose(f"batch_size={batch_size}", f"devices={devices}"), TrainSettings)
    # In batches of 4, the last one of 9 examples has a single one.
    if works:
        assemble.check_batches(settings, training=9, validation=12)
    else:
        with pytest.raises(UserError, match=r"batch_size=4 .* batch_size=5 does not"):
            assemble.check_batches(settings, training=9, validation=12)


def test_a_batch_larger_than_the_data_is_refused():
    settings = check(compose("batch_size=10"), TrainSettings)
    assemble.check_batches(settings, training=10, validation=3)
    with pytest.raises(UserError, match="batch_size=10 is more than all 9 training examples; batch_size=9 or less"):
        assemble.check_batches(settings, training=9, validation=30)


def test_prepare_composes():
    check(compose(config="prepare"), PrepareSettings)


def test_with_nothing_chosen_it_is_the_articles_experiment():
    cfg = compose()
    assert (cfg.dataset.subset, cfg.backbone.name, cfg.backbone.weights) == ("article", "densenet121", "imagenet")
    assert (cfg.optimizer._target_, cfg.optimizer.learning_rate) == ("keras.optimizers.RMSprop", 0.001)
    assert (cfg.batch_size, list(cfg.image_size), len(cfg.augmentation.copies)) == (64, [128, 128], 7)
    phases = list(cfg.schedule.phases.values())
    assert [(phase.epochs, phase.encoder, phase.steps_per_epoch) for phase in phases] == [
        (20, "frozen", "photos"),
        (20, "trainable", "photos"),
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
        "schedule.restart_data",
    }


@pytest.mark.parametrize("name", options("sweep"))
def test_every_sweep_composes_with_any_experiment_and_says_how_to_run_it(name):
    text = (CONF / "sweep" / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"# Run:      python -m clothseg.train -m sweep={name}" in text
    for experiment in ("article", "quickstart", "strong", steps("ablation")[-1]):
        settings = check(compose(f"sweep={name}", f"experiment={experiment}", "sweep.n_trials=3"), TrainSettings)
        assert settings.sweep.study_name == f"{name}_{experiment}" and settings.sweep.n_trials == 3
        # Trial 0 is within the space.
        assert set(settings.sweep.baseline) == set(settings.sweep.params)


@pytest.mark.parametrize("name", options("sweep/pruner"))
def test_every_pruner_can_be_made(name):
    cfg = compose("sweep=lr_batch", f"sweep/pruner={name}")
    with execution_whitelist(entry.TARGETS):
        assert type(entry.build(cfg.sweep.pruner)).__name__.lower() == {"none": "nop"}.get(name, name) + "pruner"


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsgaii", "cmaes", "gp", "qmc"])
def test_any_sampler_composes_with_a_sweep(sampler):
    compose("sweep=lr_batch", f"hydra/sweeper/sampler={sampler}")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (["presence.gate=1"], r"presence.gate=1 needs .* presence.weight"),
        (["decoder=unet", "+decoder.foo=1"], r"decoder=clothseg.models.decoders.unet: .*unexpected keyword.* 'foo'"),
        (["decoder=fpn", "decoder.filters=0"], "decoder.*filters=0"),
    ],
)
def test_a_network_that_cannot_be_is_told(changes, told):
    cfg = compose("backbone=mobilenetv2", "backbone.weights=null", *changes)
    with execution_whitelist(entry.TARGETS), pytest.raises(UserError, match=told):
        assemble.networks(cfg, check(cfg, TrainSettings), classes=59)


def test_weights_and_a_buffer_do_not_go_together():
    cfg = compose("augmentation.shuffle_buffer=1000")
    with execution_whitelist(entry.TARGETS):
        augmentation = entry.build(cfg.augmentation)
    with pytest.raises(UserError, match=r"augmentation.shuffle_buffer=1000 and a sampling with weights do not go"):
        assemble.Batches(None, augmentation=augmentation, weights=np.ones(3), batch_size=2, seed=0)
