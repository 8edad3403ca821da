"""Ready Composers, one dataclass of hyperparameters each."""

from composer_tf.models.wide_mnist import WideMnist as WideMnist
