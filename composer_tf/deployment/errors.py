"""The errors of a deployment."""


class DeploymentError(RuntimeError):
    """An artifact that cannot be made, or that failed its verification."""
