"""Ready Composers, one dataclass of hyperparameters each."""

from composer_tf.models.cifar10 import Cifar10 as Cifar10
from composer_tf.models.mnist import Mnist as Mnist
from composer_tf.models.wide_mnist import WideMnist as WideMnist
