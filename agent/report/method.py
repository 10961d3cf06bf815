"""The method in ten lines, for the reader of a report who has not read the paper."""

from __future__ import annotations

from typing import NamedTuple


class MethodLine(NamedTuple):
    """One line: words, and the formula they stand for ("" when there is none)."""

    text: str
    formula: str = ""


METHOD_LINES = (
    MethodLine(
        "Before and after are mixtures over checkpoints, prompt by prompt; prompts count equally.",
        "P_l(x|q) = mean over left of P(x|q,t);  P_r likewise;  m = (P_l + P_r)/2",
    ),
    MethodLine("A response's contrast says which side it speaks for.", "s(x) = (P_l - P_r)/(P_l + P_r) = tanh(llr/2)"),
    MethodLine("The total change is the linear dissimilarity, between 0 and 1.", "D = E_m[s²] = ½ Σ (P_l - P_r)²/(P_l + P_r)"),
    MethodLine(
        "An order parameter O is a question with an ordinal answer, judged on each response without knowing its side or step; "
        "what it shows is never more than D.",
        "D[O] = E_m[(E_m[s|O])²] ≤ D",
    ),
    MethodLine(
        "Its share is estimated by a leave-one-out cross product of s with its regression on level dummies, centred within prompts.",
        "share = Σ w s f₋ᵢ / Σ w s²,  f₋ᵢ = (fᵢ - hᵢ sᵢ)/(1 - hᵢ)",
    ),
    MethodLine(
        "Unique is what is lost without it, Shapley its fair part of the joint share, the residual what no accepted one explains.",
        "residual = 1 - joint",
    ),
    MethodLine(
        "Intervals are 95%, from leaving out one prompt at a time (jackknife). "
        "Nothing is clipped: an estimate outside 0 to 1 is printed and marked."
    ),
    MethodLine(
        "Without likelihoods the side z = ±1 replaces s and D is only bounded below by classifiers, so a share is an upper bound.",
        "share ≤ D[O]/D_low",
    ),
    MethodLine(
        "Candidates are proposed on one half of the responses and decided on the other, "
        "by their gain over length and what is already accepted.",
        "maxT permutation p ≤ α/2^round (passed on by a round that accepts all)  and  gain ≥ min_share",
    ),
    MethodLine(
        "The transition is the peak of D over splits t*; an onset is where a parameter's expected level has gone half the way.",
        "peak D(t*) ≥ 2 · median",
    ),
)
