"""Exports a `.keras` file to an artifact that is verified against it."""

from composer_tf.deployment.deployment import deploy as deploy
from composer_tf.deployment.errors import DeploymentError as DeploymentError
