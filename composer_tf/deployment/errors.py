"""What a deployment may end in."""


class DeploymentError(RuntimeError):
    """An artifact that cannot be made, or that failed its verification."""
