from __future__ import annotations

import scipy.io

from clothseg.data.labels import BACKGROUND, CLASS_NAMES


def test_there_are_59_different_names_and_background_comes_first():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 59
    assert CLASS_NAMES[BACKGROUND] == "background"


def test_names_are_those_of_the_data_set_in_its_order(ccp_root):
    listed = [str(cell[0]) for cell in scipy.io.loadmat(ccp_root / "label_list.mat")["label_list"][0]]
    assert listed[0] == "null"
    assert ("background", *listed[1:]) == CLASS_NAMES
