"""A `.keras` file in, an artifact out that is verified to be its equal."""

from composer_tf.deployment.deployment import deploy as deploy
from composer_tf.deployment.errors import DeploymentError as DeploymentError
