"""What docs/glossary.md says of each word; made by `python -m orchestrator.dashboard.glossary`."""

# ruff: noqa: E501
# fmt: off
TERMS = {
    "saga": (
        "A sequence of local transactions in different services; when one of them fails, those that took effect are undone."
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
        "The call of a step that undoes the effect of its action, or makes sure that the action never has one."
    ),
    "pivot": (
        "The step that cannot be undone once it has committed: before it a saga can turn back, after it the saga can only go forward."
    ),
    "forward recovery": (
        "Going on after a failure by making the same call again until it succeeds, as a saga does after its pivot."
    ),
    "backward recovery": (
        "Going back after a failure by compensating the steps that took effect, the latest first, as a saga does before its pivot."
    ),
    "definition": (
        "A saga as data, loaded from a YAML file: its steps, the schema of its input, its secrets, and its deadline."
    ),
    "snapshot": (
        "A copy of the definition, kept in the saga's row when the saga starts, so that changing the file never changes a saga under way."
    ),
    "deadline": (
        "The time after which a saga that has not reached its pivot turns back; the definition gives it in seconds from the start."
    ),
    "secret": (
        "A field that the definition names in its secret: list; its value is masked wherever people can read it."
    ),
    "context": (
        "The summary of a saga's lines that its row holds: how far each step has come, and what is known of the call under way."
    ),
    "participant": (
        "A service whose local transactions are steps of sagas."
    ),
    "orchestrator": (
        "The process that drives sagas: it calls the participants one after the other, and keeps the saga log."
    ),
    "driver": (
        "The part of the orchestrator that drives one saga: it asks the state machine what comes next, makes the call, and writes down the answer."
    ),
    "coordinator": (
        "The part of the orchestrator that starts sagas and passes an operator's commands on; there is one for each way to run a saga: built-in, choreography, Temporal."
    ),
    "engine": (
        "The program that drives orchestrated sagas: the built-in one, or Temporal."
    ),
    "mode": (
        "The way in which a saga runs: orchestrated (the orchestrator calls the participants) or choreographed (they react to each other's events)."
    ),
    "kit": (
        "The library for participants in one web framework: the author writes two functions, and the kit keeps the contract."
    ),
    "operator": (
        "A person who looks after sagas that are stuck."
    ),
    "subscriber": (
        "A client that reads the lines of the saga log from GET /events as they are committed."
    ),
    "call": (
        "One action or compensation of one saga, with all its attempts."
    ),
    "attempt": (
        "One HTTP request of a call; in choreography, one delivery of the event that asks for the call."
    ),
    "verdict": (
        "What one attempt says by itself about the call: done, refused, or unknown."
    ),
    "outcome": (
        "What all attempts of a call say together: done, refused, or unknown."
    ),
    "done": (
        "The outcome of a call that certainly took effect."
    ),
    "refused": (
        "The outcome of a call whose every attempt certainly changed nothing."
    ),
    "unknown": (
        "The outcome of a call that may have changed something, so that its step is compensated as if it had."
    ),
    "effect": (
        "What a step has changed in its participant's database, as far as the log knows: none, applied, unknown, or undone."
    ),
    "idempotency key": (
        "A text that identifies a request, so that sending the request again has no second effect: the driver makes one for each call, and the caller may choose one for each start."
    ),
    "back-off": (
        "The wait before the next attempt; it doubles each time up to a limit, and a random part of it is left out."
    ),
    "barrier": (
        "A participant's row for one saga and step, written in the same local transaction as its work, so that each action and each compensation takes effect at most once."
    ),
    "applied": (
        "The state of a barrier whose action has taken effect."
    ),
    "sealed": (
        "The state of a barrier whose compensation came before any action: the action can never take effect any more."
    ),
    "sealing": (
        "Sending the compensation to a pivot whose outcome is unknown: the pivot answers that it is sealed, or that it has committed."
    ),
    "record": (
        "A business row of a participant that belongs to a saga; GET /records/<saga_id> shows them."
    ),
    "fault": (
        "A failure that is injected on purpose, by fail= or delay=."
    ),
    "saga log": (
        "The orchestrator's database, which holds all that must be known about each saga after a crash."
    ),
    "saga row": (
        "The one row of a saga in the saga log: its state, its snapshot, its input, its context, and who drives it until when."
    ),
    "event": (
        "Something that happened to a saga, named in the past tense (action_done, cancelled); the state machine decides what follows from it, and in choreography participants publish it through the broker."
    ),
    "line": (
        "One entry in the log of a saga: an attempt, an event, or a decision."
    ),
    "state": (
        "What a saga is doing, as the state machine names it: executing, sealing, completed and so on."
    ),
    "cursor": (
        "The number of the step that a saga has reached, counted from 0."
    ),
    "replay of the log": (
        "Working out where a saga is by going through all its lines from the first; the saga row must say the same."
    ),
    "group commit": (
        "Writing the changes of many sagas in one transaction of the database (DeWitt et al., 1984)."
    ),
    "lease": (
        "The time until which one driver holds a saga; the driver prolongs it while a call is under way."
    ),
    "epoch": (
        "A number in the saga row that every claim raises, so that the writes of the previous driver change nothing."
    ),
    "claim": (
        "Taking over a saga that is due, by raising its epoch."
    ),
    "due": (
        "Said of a saga whose due_at has passed: it is time to try again, or its lease has ended."
    ),
    "recovery": (
        "Claiming sagas that are due and driving them on, by the same code that drove them before the crash."
    ),
    "stalled": (
        "Said of a saga whose next call must succeed and has failed: the saga rests, and then makes the call again."
    ),
    "rest": (
        "The wait of a stalled saga before its next round; it doubles each time up to a limit, and an operator can end it early."
    ),
    "round": (
        "The attempts that a stalled saga makes between two rests."
    ),
    "needs attention": (
        "Said of a saga that has stalled ten rounds in a row, or that is overdue, so that a person should look at it."
    ),
    "unreadable": (
        "Said of a saga whose row or lines this version cannot decode: it is shown as UNREADABLE, and nothing is changed."
    ),
    "representation": (
        "The JSON object that shows one saga, the same in every answer of the API."
    ),
    "audit": (
        "Asking the participants for their records, to see whether every ended saga took effect completely or not at all."
    ),
    "cancel": (
        "To roll back a saga that has not passed its pivot."
    ),
    "resume": (
        "To make the call that stalled a saga again, now; for a choreographed saga, to replay its parked events."
    ),
    "resolve": (
        "To let a saga go on as if its stalled call had succeeded, because a person has done the work by hand."
    ),
    "abandon": (
        "To end a choreographed saga that no service has heard of."
    ),
    "prune": (
        "To delete sagas that ended long ago from the saga log."
    ),
    "choreography": (
        "Running a saga without an orchestrator in charge: each participant acts on the events of the others and publishes its own."
    ),
    "broker": (
        "The message broker of choreographed sagas, NATS JetStream, which keeps the events and delivers each at least once."
    ),
    "listener": (
        "The part of a participant that receives the events which concern its step, and acts on them."
    ),
    "observer": (
        "The part of the orchestrator that receives the events of choreographed sagas and writes them into the saga log; it decides nothing."
    ),
    "outbox": (
        "A table into which events are written, in the same local transaction as the change that they report, to be published afterwards."
    ),
    "relay": (
        "The thread that publishes the events in an outbox."
    ),
    "inbox": (
        "A table in which a participant keeps what its step needs later: the secrets that it was sent, and the fields that it acted with."
    ),
    "dead letter": (
        "An event that its service could not handle, with the reason; it is kept in a stream of its own."
    ),
    "parked": (
        "Said of an event that has become a dead letter: nobody handles it until an operator replays it."
    ),
    "replay": (
        "Publishing a parked event again, so that its service handles it once more."
    ),
    "overdue": (
        "Said of a choreographed saga that has not ended by its deadline; it is only marked, since nobody is in charge who could turn it back."
    ),
}
