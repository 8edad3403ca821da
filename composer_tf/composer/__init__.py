"""The Composer, a Keras model, floor by floor.

Each class extends the one below it by one ability: `ReplicatedModel`,
`SteerableModel`, `ModularModel`, `PolicyGradientModel`, `BudgetedModel`,
`ExportableModel`, `Composer`.
"""

from composer_tf.composer.composer import Composer as Composer
