"""What is tried follows from the encoders; what users give is copied and completed."""

import pytest
import torch
from ensemble_cases import First
from toys import QuickClassifier

from robustmm import CMPTClassifier, MAILClassifier
from robustmm.ensemble.baselines import TfidfClassifier
from robustmm.ensemble.candidates import (
    check_given,
    default_candidates,
    given_candidates,
    image_config_of,
)

CLIP, BERT, VILT = (f"robustmm/tiny-{name}" for name in ("clip", "bert", "vilt"))
CPU = torch.device("cpu")


def families(*backbones):
    found = default_candidates(backbones, {"batch_size": 7}, 5, CPU)
    return found, {c.family for c in found}


def test_each_method_stands_on_what_it_can():
    found, names = families(CLIP, BERT, VILT)
    assert names == {
        *("prior", "TF-IDF", "probe, tiny-clip", "probe, tiny-vilt"),
        *("probe, tiny-clip + tiny-bert", "CMPT, tiny-clip + tiny-bert"),
        *("LoRA, tiny-clip", "LoRA, tiny-vilt", "MoRA, tiny-clip"),
        *("full, tiny-clip", "full, tiny-vilt", "MAIL, tiny-vilt"),
    }
    assert len({c.name for c in found}) == len(found)


def test_one_checkpoint_alone():
    assert "CMPT, tiny-clip" in families(CLIP)[1]  # with its own text encoder
    assert families(BERT)[1] == {"prior", "TF-IDF", "probe, tiny-bert"} | {
        "LoRA, tiny-bert",
        "full, tiny-bert",
    }
    assert "MoRA, tiny-vilt" not in families(VILT)[1]


def test_cheap_ones_come_first_and_each_method_before_the_rates_of_one():
    found, _ = families(CLIP, VILT)
    assert [c.name for c in found[:3]] == ["prior", "TF-IDF, C=5", "TF-IDF, C=0.5"]
    trained = [c for c in found if c.epochs]
    first = [c.order for c in trained]
    assert first == sorted(first, key=bool)
    costs = [c.cost for c in trained if c.order == 0]
    assert costs == sorted(costs)
    assert costs[-1] > costs[0]


def test_shared_parameters_reach_all_that_have_them():
    found, _ = families(CLIP)
    assert {c.estimator.get_params().get("batch_size", 7) for c in found} == {7}
    assert {c.epochs for c in found} == {None, 5}


def test_what_a_user_gives_is_copied_and_completed():
    own = QuickClassifier(on_bad_image="missing")
    words = TfidfClassifier(image_column="picture")
    pairs = [("own", own), ("words", words), ("first", First())]
    shared = {"image_column": "img", "on_bad_image": "raise", "image_root": "/tmp"}
    found = {c.name: c.estimator for c in given_candidates(pairs, shared)}
    assert found["own"] is not own
    assert found["own"].on_bad_image == "missing"
    assert found["words"].image_column == "picture"
    assert found["words"].image_root == "/tmp"
    assert own.get_params() == QuickClassifier(on_bad_image="missing").get_params()


def test_what_is_trained_in_epochs_comes_last():
    pairs = [("epochs", QuickClassifier()), ("words", TfidfClassifier())]
    assert [c.name for c in given_candidates(pairs, {})] == ["words", "epochs"]


def test_the_word_default_may_stand_in_a_list():
    assert check_given("default") == ([], True)
    pairs, with_default = check_given([("a", First()), "default"])
    assert (len(pairs), with_default) == (1, True)
    with pytest.raises(ValueError, match="candidates must be"):
        check_given([("a", First()), "defaults"])


def test_images_are_read_as_the_first_that_opens_them_does():
    pairs = [("words", TfidfClassifier()), ("cmpt", CMPTClassifier(CLIP, BERT))]
    found = given_candidates(pairs, {})
    assert image_config_of(found, CPU) is not None
    assert image_config_of(found[:1], CPU) is None
    wrong = given_candidates([("mail", MAILClassifier(CLIP))], {})
    assert image_config_of(wrong, CPU) is None
