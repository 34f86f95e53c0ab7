"""
How alike two texts are, from 0 to 1, by the metrics of `text_similarity`.

The libraries are those that the contract names, at their own defaults, and nothing is downloaded:

fuzzy_match  rapidfuzz `fuzz.ratio` (normalised InDel distance, case counts)
bleu         sacrebleu sentence BLEU, 13a tokens, exponential smoothing, effective order
gleu         nltk sentence GLEU (n-grams of 1 to 4 words, split at white space)
meteor       nltk METEOR, exact and stem matches only: synonyms would need WordNet's data
rouge_1..5   rouge-score F1 of n-grams, no stemming; its tokens are ASCII letters and digits
rouge_l      rouge-score F1 of the longest common subsequence

`input` is the hypothesis and `reference` the reference. Libraries are imported at first use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

MAX_CHARACTERS = 100_000  # METEOR and ROUGE-L take time that grows with the square of the length

METRICS = (
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
)


COSINE = "cosine"  # needs embeddings, so it is computed where they are


class TooLong(Exception):
    """The texts are longer than a metric can compare in reasonable time."""


def similarity(metric: str, text: str, reference: str) -> float:
    """The metric's value within [0, 1]. Pure. Raises TooLong past 100,000 characters."""
    longest = max(len(text), len(reference))
    if longest > MAX_CHARACTERS:
        raise TooLong(
            f"{metric} compares texts of at most {MAX_CHARACTERS} characters; one has {longest}: shorten it"
        )
    measure: Callable[[str, str], float] = _MEASURES.get(metric) or _rouge(metric)
    return min(1.0, max(0.0, measure(text, reference)))


def _fuzzy_match(text: str, reference: str) -> float:
    from rapidfuzz import fuzz

    return float(fuzz.ratio(text, reference)) / 100


def _bleu(text: str, reference: str) -> float:
    import sacrebleu

    return float(sacrebleu.sentence_bleu(text, [reference]).score) / 100


def _gleu(text: str, reference: str) -> float:
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([reference.split()], text.split()))


class _NoSynonyms:
    """Stands in for WordNet, so that METEOR reads no corpus."""

    def synsets(self, word: str) -> Sequence[object]:
        return ()


def _meteor(text: str, reference: str) -> float:
    from nltk.translate.meteor_score import single_meteor_score

    return float(single_meteor_score(reference.split(), text.split(), wordnet=_NoSynonyms()))


def _rouge(metric: str) -> Callable[[str, str], float]:
    name = "rougeL" if metric == "rouge_l" else metric.replace("_", "")

    def measure(text: str, reference: str) -> float:
        from rouge_score.rouge_scorer import RougeScorer

        return float(RougeScorer([name]).score(reference, text)[name].fmeasure)

    return measure


_MEASURES: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": _fuzzy_match,
    "bleu": _bleu,
    "gleu": _gleu,
    "meteor": _meteor,
}
