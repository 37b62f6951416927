"""The list of checks, and the two ways to run it."""

from pathlib import Path

import pytest
from broken import checks_in
from contract import ToyClassifier
from sklearn.linear_model import LogisticRegression
from toys import QuickClassifier

from robustmm.testing import check_estimator, parametrize_with_checks, subject
from robustmm.testing.battery import CHECKS, GROUPS, Check, checks_for


class PredictsTheWorst(QuickClassifier):
    def _to_labels(self, logits):
        return super()._to_labels(-logits)


# The list ---------------------------------------------------------------------------


def test_every_check_is_in_the_list_once_and_says_what_it_checks():
    names = [check.__name__ for check in CHECKS]
    assert len(names) == len(set(names))
    assert set(names) == set().union(*map(checks_in, GROUPS))
    assert all(check.__doc__.strip().endswith(".") for check in CHECKS)


def test_every_module_of_checks_is_in_the_list_and_has_its_tests():
    folder, here = Path(subject.__file__).parent, Path(__file__).parent
    defining = {f.stem for f in folder.glob("*.py") if "def check_" in f.read_text()}
    groups = {module.__name__.rpartition(".")[2] for module in GROUPS}
    assert groups == defining - {"battery"}
    for group in groups:
        assert (here / f"test_{group}.py").is_file()


def test_checks_of_one_estimator_share_what_is_fitted():
    estimator, other = QuickClassifier(), QuickClassifier()
    seen = []
    check = Check(seen.append, subject.Subject(estimator))
    check(estimator)
    check(other)
    assert seen[0] is check.subject
    assert seen[1].estimator is other
    shared = {id(check.subject) for check in checks_for(estimator)}
    assert len(shared) == 1


# The two ways to run them ---------------------------------------------------------


def test_all_failures_are_reported_or_the_first_is_raised():
    estimator = PredictsTheWorst()
    before = dict(vars(estimator))
    results = check_estimator(estimator, on_fail=None)
    failed = [r["check_name"] for r in results if r["status"] == "failed"]
    assert failed == ["check_multilabel", "check_predictions_agree"]
    assert len(results) == len(CHECKS)
    assert vars(estimator) == before
    with pytest.raises(AssertionError, match="set the labels whose probability"):
        check_estimator(estimator)


def test_checks_of_absent_parameters_are_left_out():
    class Plain(ToyClassifier):
        def __init__(self, backbone="robustmm/tiny-clip"):
            super().__init__(backbone)

    left_out = {c.__name__ for c in CHECKS} - {c.__name__ for c in checks_for(Plain())}
    assert left_out == {
        "check_bad_class_weights_are_refused",
        "check_bad_images_are_listed_by_row",
        "check_class_weight_changes_the_model",
        "check_diverging_fit_is_refused",
        "check_early_stopping_holds_rows_out",
        "check_every_trained_parameter_moves",
        "check_grid_search_over_a_pipeline",
        "check_heads_compute_in_float32",
        "check_heads_start_from_a_probe",
        "check_hidden_cells_are_missing_cells",
        "check_interrupt_changes_nothing",
        "check_numbers_must_be_finite",
    }


def test_other_estimators_are_refused():
    with pytest.raises(TypeError, match="subclass of BaseMultimodalClassifier"):
        check_estimator(LogisticRegression())
    with pytest.raises(ValueError, match='on_fail must be "raise" or None'):
        check_estimator(QuickClassifier(), on_fail="warn")


def test_pytest_gets_a_test_per_check():
    mark = parametrize_with_checks([QuickClassifier(), QuickClassifier()]).args
    names, cases = mark
    assert names == ("estimator", "check")
    assert len(cases) == 2 * len(CHECKS)
    assert cases[0].id == "QuickClassifier-check_bad_parameters_are_named"
