"""The pictures of a report: plain data in, a Matplotlib figure out, drawn under the theme in force."""

from sepnet.report.classes import confusion_matrix, per_class_accuracy
from sepnet.report.curves import accuracy_curves
from sepnet.report.fields import receptive_field_growth
from sepnet.report.mistakes import worst_mistakes
from sepnet.report.mosaic import dataset_mosaic

__all__ = [
    "accuracy_curves",
    "confusion_matrix",
    "dataset_mosaic",
    "per_class_accuracy",
    "receptive_field_growth",
    "worst_mistakes",
]
