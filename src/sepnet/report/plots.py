"""The pictures of a report: plain data in, a Matplotlib figure out, drawn under the theme in force."""

from sepnet.report.class_plots import confusion_matrix, per_class_accuracy
from sepnet.report.learning_curves import accuracy_curves
from sepnet.report.misclassified import worst_mistakes
from sepnet.report.mosaic import dataset_mosaic
from sepnet.report.receptive_field_plot import receptive_field_growth

__all__ = [
    "accuracy_curves",
    "confusion_matrix",
    "dataset_mosaic",
    "per_class_accuracy",
    "receptive_field_growth",
    "worst_mistakes",
]
