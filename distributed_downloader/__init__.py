"""Any Hugging Face repo, at the sum of all your machines' bandwidth, every byte verified."""

__version__ = "0.1.0"
