"""A `.keras` file in, an artifact out that is verified to be its equal."""

from composer_tf.deployment.deployment import DeploymentError as DeploymentError
from composer_tf.deployment.deployment import deploy as deploy
