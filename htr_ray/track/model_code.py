"""What MLflow executes to load a logged model ("models from code"); see ``model.py``."""

from mlflow.models import set_model

from htr_ray.track.model import LineReader

set_model(LineReader())
