"""Language models with learned meta-tokens, for PyTorch Lightning.

Rooms: `data` (text to batches), `model` (the transformer, plain PyTorch), `analysis` (pure functions), `lit` (the
Lightning shell), `cli` (the only door). Importing the package imports nothing heavy.
"""

__version__ = "0.1.0"
