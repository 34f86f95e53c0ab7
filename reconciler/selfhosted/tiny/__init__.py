"""
The base model that comes with the package: this folder *is* the model folder.
Text from `corpus`, weights from `recipe`, terms in LICENSE and MODEL_CARD.md.
"""
