"""BM25 in plain Python over the texts of all rows, which every search by words is held to."""

import math

from jammi_duck.storage.words.analyser import tokens


def words_of(analyser, text):
    """The terms of a text with their positions, and how many words it has, without stop words."""
    found, words = [], 0
    for token in tokens(text):
        terms, count = analyser.token(token)
        found += [(term.text, words + term.position, term.is_own) for term in terms]
        words += count
    return [(text, place) for text, place, _ in found], sum(is_own for _, _, is_own in found)


def frequency(clause, occurrences):
    """How often a text with these terms matches a clause."""
    if clause.is_prefix:
        begun = clause.terms[0][0]
        return sum(term.startswith(begun) for term, _ in occurrences) + sum(
            term in clause.also for term, _ in occurrences
        )
    if len(clause.terms) == 1:
        return sum(term == clause.terms[0][0] for term, _ in occurrences)
    there = set(occurrences)
    (first, start) = clause.terms[0]
    begins = {place - start for term, place in there if term == first}
    return sum(all((term, begin + place) in there for term, place in clause.terms) for begin in begins)


def bm25(analyser, texts, query, k1=1.2, b=0.75):
    """The scores of the rows that match, by key. `texts` are those of all rows that are there, by key."""
    analysed = {key: words_of(analyser, text) for key, text in texts.items()}
    average = sum(length for _, length in analysed.values()) / max(len(analysed), 1) or 1e-9
    scores = {}
    for clause, weight in query.scored:
        found = {key: frequency(clause, occurrences) for key, (occurrences, _) in analysed.items()}
        found = {key: count for key, count in found.items() if count}
        idf = math.log1p((len(analysed) - len(found) + 0.5) / (len(found) + 0.5))
        for key, count in found.items():
            norm = k1 * (1 - b + b * analysed[key][1] / average)
            scores[key] = scores.get(key, 0.0) + weight * idf * count / (count + norm)
    return {key: score for key, score in scores.items() if meets(analyser, texts[key], query)}


def shares(analyser, texts, query):
    """The share of a query that the rows have which match, by key: the weights and idf of what they match, of all."""
    analysed = {key: words_of(analyser, text)[0] for key, text in texts.items()}
    had, every = dict.fromkeys(texts, 0.0), 0.0
    for clause, weight in query.scored:
        found = [key for key, occurrences in analysed.items() if frequency(clause, occurrences)]
        idf = math.log1p((len(analysed) - len(found) + 0.5) / (len(found) + 0.5))
        every += weight * idf
        for key in found:
            had[key] += weight * idf
    return {key: value / (every or 1) for key, value in had.items()}


def meets(analyser, text, query):
    """Whether a text has what a query says that it must have, and nothing that it must not."""
    occurrences, _ = words_of(analyser, text)
    return all(frequency(clause, occurrences) for clause in query.must) and not any(
        frequency(clause, occurrences) for clause in query.without
    )
