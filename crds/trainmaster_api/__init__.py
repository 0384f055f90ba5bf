"""The contract of Trainmaster: typed models of the TrainingJob and of every message between its parts.

Operator and trainer both import this package and never each other; it imports neither, and nothing but pydantic.
"""

__version__ = "0.1.0"

GROUP = "trainmaster.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "TrainingJob"
PLURAL = "trainingjobs"
SHORT_NAME = "tj"
CATEGORY = "ml"
