"""Openly licensed corpora by name: what they are (``entries``) and how they are fetched (``fetch``)."""

from htr_ray.corpus.catalogue.entries import Entry, describe, find, listing, load
from htr_ray.corpus.catalogue.fetch import Fetched, fetch

__all__ = ["Entry", "Fetched", "describe", "fetch", "find", "listing", "load"]
