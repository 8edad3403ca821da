"""The Composer, a Keras model, layer by layer.

Each class extends the one before it by one ability:

=================== ========================================================
class               what it adds
=================== ========================================================
ReplicatedModel     `fit` over the replicas of `tf.distribute`, or of many
                    steps in one XLA program
SteerableModel      `predict` and `evaluate` at a gamma; a class below says
                    what a budget stands for (`_gamma_of`)
ModularModel        stem, metalayers and controller: `build`, costs, saving
PolicyGradientModel `compile`, `train_step`, `test_step`; they call the model
                    with `paths` and `return_composition`
BudgetedModel       `calibrate`, and what a budget stands for
ExportableModel     `export`
Composer            the constructor, and `call`: the path of a batch
=================== ========================================================
"""

from composer_tf.composer.composer import Composer as Composer
