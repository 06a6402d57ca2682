"""Images: importers -> store -> augmented batches. Knows nothing of networks."""

from fewshot.data.store import Dataset, Split, open_dataset

__all__ = ["Dataset", "Split", "open_dataset"]
