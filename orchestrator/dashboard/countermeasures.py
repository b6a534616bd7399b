"""The words of the isolation laboratory: its countermeasures, what each costs, and what is counted. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Countermeasure:
    """One switch: what it changes, what it is for, and what it costs."""

    title: str
    does: str
    against: str
    costs: str


# By the names of the switches.
COUNTERMEASURES = {
    "lock": Countermeasure(
        "Semantic lock",
        "Look marks the row as its saga's own, and refuses where it is another's. A last step, or Look's compensation, "
        "takes the mark away.",
        "All three, among sagas that look for the mark.",
        "Others are turned away and have to come again; if they waited instead, two sagas could wait for each other. "
        "It takes one more step and one more compensation, and a saga that is stuck keeps its row locked. To mark the "
        "row only in Take would be too late: the other saga has looked by then.",
    ),
    "commutative": Countermeasure(
        "Commutative update",
        "Take subtracts and its compensation adds, whatever the balance is, so that their order does not matter.",
        "Lost updates.",
        "It needs operations that commute. The balance that was seen says nothing about the balance when it changes: "
        "what was checked on it, such as that there is enough, may no longer hold. Others read as many dirty and fuzzy "
        "values as before, and more: what nobody overwrites is there to be seen.",
    ),
    "reread": Countermeasure(
        "Reread value",
        "Take refuses where the balance is no longer what Look has seen. This is an optimistic lock.",
        "Lost updates by actions.",
        "Whoever comes second turns back and has to start again, even where the change is undone a moment later. "
        "A compensation must not refuse: one that restores an old value overwrites what has come since, and only a "
        "commutative one does not. After the pivot an action must not refuse either.",
    ),
    "pessimistic": Countermeasure(
        "Pessimistic view",
        "Take comes last, after the pivot: nobody sees the change before it is certain.",
        "Dirty reads.",
        "The goods are sent before the amount is taken, and Take must succeed then: it has no way back, and no right "
        "to refuse. The time between Look and Take grows, and with it the number of lost updates. Together with the "
        "reread value, a saga can be stuck for good.",
    ),
}

# By the names of the counts: a heading, and what it means.
COUNTED = {
    "lost": ("Lost update", "One saga overwrites a change of the other without having read it."),
    "dirty": ("Dirty read", "One saga reads a change of the other that is undone later."),
    "fuzzy": ("Fuzzy read", "Two steps of one saga read different balances, because the other has changed the row."),
    "wrong": ("Balance wrong at the end", "The balance is not what the completed purchases have left of it."),
    "turned-away": ("Turned back needlessly", "A saga has turned back that would have completed alone."),
    "stuck": ("Stuck", "A saga is stalled: past its pivot it makes a call that is refused each time."),
}

WORLDS = {
    "sold-out": "Ann's goods are sold out, so that her saga has to turn back; Ben's can complete",
    "both": "Both sagas can complete",
}
