"""What docs/glossary.md says of each word; made by `python -m orchestrator.dashboard.glossary`."""

# ruff: noqa: E501
# fmt: off
TERMS = {
    "saga": (
        "A sequence of local transactions in different services, in which the ones that took effect are undone when a later one fails."
    ),
    "local transaction": (
        "A transaction of one service in its own database; nothing in a saga spans two of them."
    ),
    "step": (
        "One place in a saga: a call that does something (its action) and, before the pivot, a call that undoes it (its compensation)."
    ),
    "action": (
        "The call of a step that does its work."
    ),
    "compensation": (
        "The call of a step that undoes its action's effect, or makes sure that it never will have one."
    ),
    "pivot": (
        "The step that cannot be undone once it has committed: before it a saga can turn back, after it a saga can only go forward."
    ),
    "forward recovery": (
        "Going on after a failure by calling the same step again until it succeeds; what a saga does after its pivot."
    ),
    "backward recovery": (
        "Going back after a failure by compensating what took effect, the latest step first; what a saga does before its pivot."
    ),
    "definition": (
        "A saga as data, loaded from a YAML file: its steps, the schema of its input, its secrets, and its deadline."
    ),
    "snapshot": (
        "The definition as it was when a saga started, kept in the saga's row, so that a changed file never changes a saga under way."
    ),
    "deadline": (
        "The seconds after which a saga that has not reached its pivot turns back."
    ),
    "secret": (
        "A field that is named in a definition's secret: list: it is masked wherever people can read it."
    ),
    "context": (
        "The summary of a saga's lines in its row: how far each step has come, and what was tried of the call that is under way."
    ),
    "participant": (
        "A service whose local transactions are steps of sagas."
    ),
    "orchestrator": (
        "The process that drives sagas: it calls the participants one after the other, and keeps the saga log."
    ),
    "driver": (
        "The part of the orchestrator that drives one saga: it asks the state machine, makes the call, and writes down the answer."
    ),
    "coordinator": (
        "What starts a saga and passes an operator's commands on to it; there is one for each way to run a saga: built-in, choreography, Temporal."
    ),
    "engine": (
        "What drives orchestrated sagas: the built-in one, or Temporal."
    ),
    "mode": (
        "Whether a saga is orchestrated (somebody calls the participants) or choreographed (they tell each other)."
    ),
    "kit": (
        "The library for participants in one web framework: the author writes two functions, the kit keeps the contract."
    ),
    "operator": (
        "A person who looks after sagas that are stuck."
    ),
    "call": (
        "One action or compensation of one saga, with all its attempts."
    ),
    "attempt": (
        "One HTTP request of a call, or one delivery of an event to a choreographed step."
    ),
    "outcome": (
        "What a call came to: done, refused, or unknown."
    ),
    "done": (
        "The outcome of a call that certainly took effect."
    ),
    "refused": (
        "The outcome of a call of which every attempt certainly changed nothing."
    ),
    "unknown": (
        "The outcome of a call that may have had an effect, so that its step is compensated as if it had."
    ),
    "effect": (
        "What a step's action has changed at its participant, as far as the log tells: applied, undone, none, or unknown."
    ),
    "idempotency key": (
        "A text that names a request, so that sending it again has no second effect: one for each call (made by the driver), and one for each start (chosen by the caller)."
    ),
    "back-off": (
        "The wait before the next attempt or round; it doubles each time, up to a bound, and is shortened by chance."
    ),
    "barrier": (
        "A participant's row for a saga and a step, written in the same local transaction as its work, which lets each action and each compensation take effect at most once."
    ),
    "applied": (
        "The state of a barrier whose action has taken effect."
    ),
    "sealed": (
        "The state of a barrier whose compensation came before any action: the action can never take effect any more."
    ),
    "sealing": (
        "Asking a pivot whose outcome is unknown to seal itself; it answers that it did, or that it has committed."
    ),
    "record": (
        "A business row of a participant that belongs to a saga; GET /records/<saga_id> shows them."
    ),
    "fault": (
        "A failure that is injected on purpose, by fail= or delay=."
    ),
    "saga log": (
        "The orchestrator's database: what must be known of each saga after a crash."
    ),
    "event": (
        "What happened to a saga, in the past tense (action_done, cancelled): the state machine decides what follows from it."
    ),
    "line": (
        "One entry of a saga's log: an attempt, an event, or a decision."
    ),
    "state": (
        "Where a saga is in the state machine, together with the cursor."
    ),
    "cursor": (
        "The position of the step that a saga has reached."
    ),
    "group commit": (
        "The writes of many sagas in one transaction of the database (DeWitt et al., 1984)."
    ),
    "lease": (
        "The time for which one driver holds a saga; it is prolonged while a call is under way."
    ),
    "epoch": (
        "A number in a saga's row that each claim raises, so that the writes of the driver before it touch no row."
    ),
    "claim": (
        "Taking a saga that is due, by raising its epoch."
    ),
    "due": (
        "Said of a saga whose due_at has passed: it was to be tried again, or its lease has run out."
    ),
    "recovery": (
        "Claiming what is due and driving it on, from the same log and by the same code as before the crash."
    ),
    "stalled": (
        "Said of a saga whose next call must succeed and did not: it rests, and then tries again by itself."
    ),
    "round": (
        "The attempts that a stalled saga makes between two rests."
    ),
    "needs attention": (
        "Said of a saga that has stalled ten rounds in a row, or that is overdue: a person should look at it."
    ),
    "unreadable": (
        "Said of a saga whose row or lines this version cannot decode: it is shown as such, and left alone."
    ),
    "representation": (
        "A saga as every answer of the API shows it."
    ),
    "audit": (
        "Asking the participants themselves whether every ended saga is all or nothing."
    ),
    "cancel": (
        "Roll back a saga that has not passed its pivot."
    ),
    "resume": (
        "Make the call that stalled a saga again, now."
    ),
    "resolve": (
        "Go on as if the stalled call had succeeded, because a person has done it by hand."
    ),
    "abandon": (
        "End a choreographed saga of which no service has heard."
    ),
    "prune": (
        "Forget sagas that ended long ago."
    ),
    "choreography": (
        "A saga without an orchestrator: each participant acts on the events of the others, and publishes its own."
    ),
    "broker": (
        "NATS JetStream, which keeps the events and delivers each of them at least once."
    ),
    "listener": (
        "The part of a participant that hears the events which concern its step, and acts on them."
    ),
    "observer": (
        "The part of the orchestrator that hears all events of choreographed sagas and writes them into the saga log; it decides nothing."
    ),
    "outbox": (
        "A table in which events are written in the local transaction that they tell of, to be published afterwards."
    ),
    "relay": (
        "What publishes the events in an outbox."
    ),
    "inbox": (
        "A table in which a participant keeps what it must remember to undo its step."
    ),
    "dead letter": (
        "An event that could not be handled: it is parked until an operator replays it."
    ),
    "overdue": (
        "Said of a choreographed saga that has not ended by its deadline; nobody is in charge who could turn it back."
    ),
}
