"""Episodes: which images make up task number n. A pure function; knows no pixels and no networks."""

from fewshot.episodes.disjoint import DisjointSampler
from fewshot.episodes.frozen import Tasks
from fewshot.episodes.sampler import Episodes, EpisodeSampler, Protocol

__all__ = ["DisjointSampler", "EpisodeSampler", "Episodes", "Protocol", "Tasks"]
