"""What MLflow executes to load a logged encoder ("models from code"); see ``encoder_model.py``."""

from mlflow.models import set_model

from htr_ray.track.encoder_model import LineEncoder

set_model(LineEncoder())
