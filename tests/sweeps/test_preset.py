"""The best trial of a study as a preset: it composes to the trial's configuration, and says nothing of this machine."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from clothseg import entry
from clothseg.errors import UserError
from clothseg.sweeps.preset import MARK, Preset, write_preset

CONF = entry.config_folder()
NAME = "best_of_study"


def write(
    folder: Path, *overrides: str, name: str = NAME, about: tuple[str, ...] = (f"{MARK}study: 3 of 4.",)
) -> Preset:
    return write_preset(folder, name=name, overrides=overrides, about=about, duration="2 min", expect="val/miou 0.1")


@pytest.fixture(autouse=True, scope="module")
def _running_hydra():
    """As within an entry point; to begin anew for every composition takes longer than the composition."""
    with hydra.initialize_config_dir(str(CONF)):
        yield


@contextmanager
def no_hydra() -> Iterator[None]:
    running = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        yield
    finally:
        GlobalHydra.instance().hydra = running


def compose(*overrides: str, folder: Path | None = None) -> DictConfig:
    search = [f"hydra.searchpath=['file://{folder}']"] if folder is not None else []
    return hydra.compose("train", [*search, *overrides])


def content(cfg: DictConfig) -> dict[str, str]:
    """Section by section, unresolved; what is written tells types and the order of keys."""
    sections = OmegaConf.to_container(cfg)
    return {key: repr(section) for key, section in sections.items() if key not in ("name", "sweep")}


def preset_of(folder: Path, *overrides: str) -> tuple[Preset, str]:
    """Writes the preset, makes sure that it is the trial's configuration, and returns it with its text."""
    preset = write(folder, *overrides)
    again = compose(f"experiment={NAME}", *preset.overrides, folder=folder)
    assert again.name == NAME
    assert content(again) == content(compose(*overrides, folder=folder))
    return preset, preset.path.read_text(encoding="utf-8")


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


GROUPS = ("augmentation", "dataset", "decoder/upsample", "optimizer", "schedule", "splitting")
SAME = {
    "nothing": (),
    "values": (
        "batch_size=32",
        "batch_size=16",
        "optimizer.learning_rate=0.003",
        "schedule.phases.frozen.epochs=2",
        "image_size[0]=32",
    ),
    "a value before the choice of its group": ("optimizer.momentum=0.5", "optimizer=sgd", "splitting=grouped"),
    "what the experiment chose and set, and an optimizer for its phase": (
        "experiment=quickstart",
        "backbone=resnet50",
        "optimizer=rmsprop",
        "backbone.weights=imagenet",
        "batch_size=64",
        "+optimizer@schedule.phases.training.optimizer=adamw",
        "schedule.phases.training.optimizer.learning_rate=0.5",
    ),
    "another experiment's schedule": ("experiment=article_as_printed", "schedule=one_phase"),
    "a group within a group": ("decoder/upsample=tensorflow_examples", "decoder.filters=[64,32,16,8]"),
    "values of every kind": (
        *("+loss.a='12'", '+loss.b="1e-3"', "+loss.c='null'", "+loss.d='yes'", "+loss.e=''", "+loss.f=null"),
        *("++loss.g=1", "++loss.h=1.0", "++loss.i=True", "++loss.j=inf", "++loss.k=-0.5", "++loss.l=1e-5"),
        *(r"+loss.m='it\'s, # a: \"{text}\" = [x]'", "+loss.n=a b  c", r"+loss.o='\${x} é'"),
        *("+loss.p='${backbone.name}-${seed}'", "optimizer.learning_rate=${oc.env:RATE,0.5}"),
        *("++loss.q=[1,[a,'2'],{b:[null]}]", "+loss.r={c:{d:1,e:[]},f:{}}", "augmentation.copies=[]"),
        "schedule.phases.frozen={epochs:3,steps_per_epoch:4}",
        "+schedule.phases.last={epochs:1,encoder:frozen}",
    ),
    "a phase and a group less": ("~schedule.phases.fine_tuning", "~loss"),
    "the first phase moved to the end, beside one with its own optimizer": (
        "+optimizer@schedule.phases.fine_tuning.optimizer=sgd",
        "schedule.phases.fine_tuning.optimizer.momentum=0.5",
        "~schedule.phases.frozen",
        "+schedule.phases.frozen={epochs:1,encoder:frozen}",
    ),
    "something less of what the experiment sets": (
        "experiment=quickstart",
        "optimizer=adamw",
        "~optimizer.learning_rate=0.002",
        "~schedule.phases.training",
        "+schedule.phases.short={epochs:3}",
    ),
    "something less of a group within a group": ("~decoder.upsample._partial_", "decoder/upsample=tensorflow_examples"),
    "no experiment": ("~experiment", "name=mine", "batch_size=2"),
}


@pytest.mark.parametrize("overrides", SAME.values(), ids=SAME.keys())
def test_it_composes_to_what_the_trial_composed_to(tmp_path, overrides):
    preset, _ = preset_of(tmp_path, *overrides)
    assert preset.overrides == []


@pytest.mark.parametrize("turn", range(max(len(options(group)) for group in GROUPS)))
def test_so_does_every_option_of_every_group_with_a_value_changed_in_it(tmp_path, turn):
    chosen = {group: options(group)[turn % len(options(group))] for group in GROUPS}
    values = (f"++{group.replace('/', '.')}.learning_rate=0.{place}5" for place, group in enumerate(GROUPS))
    preset, text = preset_of(tmp_path, *(f"{group}={option}" for group, option in chosen.items()), *values)
    assert preset.overrides == []
    assert all(f"- override /{group}: {option}\n" in text for group, option in chosen.items())
    assert all(f"learning_rate: 0.{place}5\n" in text for place in range(len(GROUPS)))


def test_of_the_configuration_only_differences_are_in_it(tmp_path):
    _, text = preset_of(tmp_path, "experiment=quickstart", "backbone=resnet50", "optimizer.learning_rate=0.003")
    assert text.split("\n\n") == [
        "# @package _global_\n"
        "# The best trial of the study study: 3 of 4.\n"
        f"# Run:      python -m clothseg.train experiment={NAME}\n"
        "# Duration: 2 min\n"
        "# Expect:   val/miou 0.1\n"
        "defaults:\n- quickstart\n- override /backbone: resnet50",
        f"name: {NAME}\noptimizer:\n  learning_rate: 0.003\n",
    ]


def test_what_the_trial_states_is_stated_even_where_the_experiment_says_the_same(tmp_path):
    text = write(tmp_path, "experiment=quickstart", "batch_size=16", "backbone=mobilenetv2").path.read_text()
    assert "\nbatch_size: 16\n" in text and "- override /backbone: mobilenetv2\n" in text


WHERE = (
    "dataset.root=/machine/photos",
    "prepare.cache=/machine/cache",
    "prepare.workers=3",
    "tracking.experiment=machine",
    "+tracking.tags.who=machine",
    "++tracking.tags={where:machine}",
    "threads=3",
    "splitting.file=/machine/split.json",
    "backbone.weights=/machine/weights.h5",
)


def test_what_says_where_a_run_happens_is_for_the_command_in_its_order(tmp_path):
    preset, text = preset_of(tmp_path, "batch_size=8", *WHERE, "~schedule.phases.frozen", "~tracking.tags")
    assert preset.overrides == [*WHERE, "~tracking.tags"]
    body = text.split("\nname:")[1]
    assert "batch_size: 8" in body
    for part in ("machine", "dataset", "prepare", "tracking", "threads", "splitting", "weights"):
        assert part not in body


def test_neither_is_it_in_sections_that_are_written_whole(tmp_path):
    preset, text = preset_of(tmp_path, *WHERE, "~dataset.pairing", "~splitting.group_distance", "~prepare.skip_invalid")
    assert preset.overrides == [*WHERE]
    assert all(f"- override /{group}: null\n" in text for group in ("dataset", "splitting", "prepare"))
    assert "machine" not in text and "pairing" not in text


@pytest.mark.parametrize("file", ["weights.h5", "'/machine/${backbone.name}.h5'"])
def test_weights_of_a_file_are_for_the_command(tmp_path, file):
    preset, text = preset_of(tmp_path, f"backbone.weights={file}", "backbone=resnet50")
    assert preset.overrides == [f"backbone.weights={file}"]
    assert "weights" not in text.split("\nname:")[1]


@pytest.mark.parametrize("weights", ["null", "imagenet"])
def test_weights_that_anyone_has_are_in_the_preset(tmp_path, weights):
    preset = write(tmp_path, f"backbone.weights={weights}")
    assert preset.overrides == [] and f"  weights: {weights}\n" in preset.path.read_text()


def test_no_other_path_of_a_machine_is_in_it(tmp_path):
    paths = ("+loss.b=/machine/a", "+loss.c=file:///machine", "+loss.d=[1,{b:'~/machine'}]", r"+loss.e='C:\machine'")
    preset, text = preset_of(tmp_path, "+loss.a=1", *paths)
    assert preset.overrides == [*paths] and "machine" not in text and "a: 1" in text
    assert f"experiment={NAME} +loss.b=PATH +loss.c=PATH +loss.d=PATH +loss.e=PATH\n" in text


def test_of_a_dictionary_the_rest_is_kept(tmp_path):
    preset, text = preset_of(tmp_path, "+dataset={root:'/machine/a b',subset:all,more:{x:1,file:/machine/c}}")
    assert preset.overrides == ["++dataset.root='/machine/a b'", "++dataset.more.file=/machine/c"]
    assert "machine" not in text and "subset: all" in text and "x: 1" in text


def test_the_header_names_what_another_machine_needs_too(tmp_path):
    text = write(tmp_path, *WHERE).path.read_text()
    needed = f"experiment={NAME} dataset.root=FOLDER splitting.file=FILE backbone.weights=FILE"
    assert f"\n# Run:      python -m clothseg.train {needed}\n" in text


def test_hydras_own_options_are_for_the_command_and_its_search_path_is_obeyed(tmp_path):
    for group in ("loss", "more"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text("gamma: 2\ndelta: 3\n")
    search = f"hydra.searchpath=['file://{tmp_path}']"
    overrides = ("loss=mine", "loss.gamma=3", "+more=mine", "~more.delta")
    preset = write(tmp_path, search, "hydra.run.dir=somewhere", *overrides)
    assert preset.overrides == [search, "hydra.run.dir=somewhere"]
    assert "hydra" not in preset.path.read_text()
    again = compose(f"experiment={NAME}", folder=tmp_path)
    assert (dict(again.loss), dict(again.more)) == ({"gamma": 3, "delta": 3}, {"gamma": 2})
    assert content(again) == content(compose(*overrides, folder=tmp_path))


def test_of_a_sweep_only_what_it_sets_elsewhere_is_kept(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.yaml").write_text(
        "# @package _global_\n"
        "best_metric: val/accuracy\n"
        "sweep:\n  n_trials: 3\n"
        "tracking:\n  experiment: machine\n"
        "dataset:\n  root: /machine/photos\n"
    )
    overrides = ("sweep=mine", "sweep.n_trials=9", "+sweep.presets=/machine", "batch_size=4")
    preset = write(tmp_path, f"hydra.searchpath=['file://{tmp_path}']", *overrides)
    body = preset.path.read_text().split("\n\n")[1]
    assert body == f"name: {NAME}\nbatch_size: 4\nbest_metric: val/accuracy\n"
    same = ("tracking.experiment=machine", "dataset.root=/machine/photos")
    again = compose(f"experiment={NAME}", *same, folder=tmp_path)
    assert again.sweep is None and content(again) == content(compose(*overrides, folder=tmp_path))


def test_a_name_given_to_the_trial_is_not_the_presets(tmp_path):
    _, text = preset_of(tmp_path, "name=mine", "+loss.a='${name}'")
    assert "mine" not in text and "${name}" in text


def test_the_running_hydra_is_used(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    shutil.copy(conf / "optimizer" / "adam.yaml", conf / "optimizer" / "mine.yaml")
    with no_hydra(), hydra.initialize_config_dir(str(conf)):
        write(conf, "optimizer=mine")
        assert compose(f"experiment={NAME}").optimizer._target_ == "keras.optimizers.Adam"


def test_where_none_runs_none_is_left_running(tmp_path):
    with no_hydra():
        write(tmp_path, "optimizer=adam")
        assert not GlobalHydra.instance().is_initialized()
    assert compose(f"experiment={NAME}", folder=tmp_path).optimizer._target_ == "keras.optimizers.Adam"


def test_the_winner_of_a_sweep_around_a_winner_needs_that_one_no_longer(tmp_path):
    conf = tmp_path / "conf"
    shutil.copytree(CONF, conf)
    with no_hydra(), hydra.initialize_config_dir(str(conf)):
        write(conf, "experiment=quickstart", "batch_size=8", "~schedule.phases.training.validation_steps")
        overrides = (f"experiment={NAME}", "optimizer=sgd", "seed=3")
        wanted = content(compose(*overrides))
        write(conf, *overrides, name="best_of_another")
        assert f"- {NAME}\n" in (conf / "experiment" / "best_of_another.yaml").read_text()
        write(conf, *overrides)
        (conf / "experiment" / "quickstart.yaml").unlink()
        for name in (NAME, "best_of_another"):
            assert content(compose(f"experiment={name}")) == wanted


def test_a_later_winner_takes_the_place_of_an_earlier_one(tmp_path):
    write(tmp_path, "batch_size=8")
    preset = write(tmp_path, "seed=8")
    text = preset.path.read_text()
    assert "batch_size" not in text and "seed: 8" in text
    assert [path.name for path in (tmp_path / "experiment").iterdir()] == [preset.path.name]


@pytest.mark.parametrize("text", ["", "# @package _global_\n# Mine.\n# The best trial of the study x\nname: x\n"])
def test_an_experiment_of_somebodys_is_not_replaced(tmp_path, text):
    path = tmp_path / "experiment" / f"{NAME}.yaml"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UserError, match=f"{NAME}.yaml is not the best trial"):
        write(tmp_path, "batch_size=8")
    assert path.read_text() == text


def test_a_folder_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write .*file.* sweep.presets"):
        write(tmp_path / "file", "batch_size=8")


@pytest.mark.parametrize("name", ["best_of_a/b", "../best_of_a", "best of a", "best_of_a=b", ""])
def test_a_name_that_is_no_option_is_told(tmp_path, name):
    with pytest.raises(UserError, match="cannot be a preset"):
        write(tmp_path, "batch_size=8", name=name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~batch_size", "seed=1"], "no preset comes to the same as ~batch_size$"),
        (["~backbone.weights", "batch_size=2"], "no preset comes to the same as ~backbone.weights$"),
        (["backbone=resnet5"], "does not compose: .*did you mean backbone=resnet50"),
        (["batch_size=1,2"], "does not compose: .*batch_size=1,2"),
        (["batch_size"], "does not compose: .*batch_size"),
    ],
)
def test_what_a_preset_cannot_say_is_told_and_nothing_is_written(tmp_path, overrides, message):
    with pytest.raises(UserError, match=message):
        write(tmp_path, *overrides)
    assert not list(tmp_path.iterdir())


def test_neither_points_in_the_name_nor_lines_in_comments_do_harm(tmp_path):
    preset = write(tmp_path, name="best_of_v1.5-x", about=(f"{MARK}a\nseed: 5\rkeep: best", "more"))
    assert preset.path.name == "best_of_v1.5-x.yaml"
    assert preset.path.read_text().splitlines()[1:3] == [f"# {MARK}a seed: 5 keep: best", "# more"]
    assert compose("experiment=best_of_v1.5-x", folder=tmp_path).seed == 0


def test_without_its_mark_none_is_written(tmp_path):
    with pytest.raises(ValueError, match="must begin"):
        write(tmp_path, "batch_size=8", about=("Something else",))
