"""Keras layers: metalayers, controllers, glimpses, and routing of rows."""

from composer_tf.layers.controller import Controller as Controller
from composer_tf.layers.feed_forward_controller import (
    FeedForwardController as FeedForwardController,
)
from composer_tf.layers.glimpse import Glimpse as Glimpse
from composer_tf.layers.metalayer import Metalayer as Metalayer
from composer_tf.layers.pixel_blocks import DepthToSpace as DepthToSpace
from composer_tf.layers.pixel_blocks import SpaceToDepth as SpaceToDepth
from composer_tf.layers.rnn_controller import RNNController as RNNController
from composer_tf.layers.standardized_conv2d import (
    StandardizedConv2D as StandardizedConv2D,
)
