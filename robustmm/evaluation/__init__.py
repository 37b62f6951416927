"""Numbers about classifiers, as DataFrames; of any estimator that takes the frame."""

from .availability import availability_grid as availability_grid
from .calibration import expected_calibration_error as expected_calibration_error
from .classes import class_scores_by_pattern as class_scores_by_pattern
from .classes import nearest_class_share as nearest_class_share
from .comparison import compare_methods as compare_methods
from .continual import average_performance as average_performance
from .continual import continual_matrix as continual_matrix
from .continual import forgetting as forgetting
from .embedding import embedding_coordinates as embedding_coordinates
from .explanation import Explanation as Explanation
from .explanation import explain as explain
from .patterns import modality_importance as modality_importance
from .patterns import score_by_pattern as score_by_pattern
from .retrieval import retrieval_scores as retrieval_scores
from .robustness import cross_scenario_matrix as cross_scenario_matrix
from .robustness import missing_rate_curve as missing_rate_curve
