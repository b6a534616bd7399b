"""The decisions of a listener about an event, before it tries anything and after an attempt has ended. Pure.

    event -> decide() -> ACT          -> after_action() ----> DONE, RETRY, STALL, PARK or GIVE_UP
                         COMPENSATE   -> after_compensation() -> DONE, RETRY, STALL or PARK
                         GIVE_UP      -> after_giving_up() ---> DONE, CONFIRM_DONE, RETRY, STALL or PARK
                         FORWARD, STORE_SECRETS or IGNORE

An action is given up once its attempts are used up, unless the saga is past its pivot: there it is tried until it
succeeds, as every compensation is. After `ROUNDS` rounds without success the event is parked for an operator.
"""

from __future__ import annotations

from enum import StrEnum

from saga.barrier import TOO_LATE
from saga.choreography.attempt_history import StepAttempt
from saga.choreography.events import Task
from saga.local_transaction import ACTION_STAYS, LocalOutcome

ROUNDS = 10  # rounds of attempts of a call that must succeed, before its event is parked
INVALID = (400, 403)  # what the service answers before it acts: wrong fields, or an injected fault that is forbidden


class Decision(StrEnum):
    """What is done about an event next."""

    ACT = "act"
    COMPENSATE = "compensate"
    GIVE_UP = "give_up"  # see to it that the action has no effect, and say so
    CONFIRM_DONE = "confirm_done"  # the action had taken effect and cannot be undone: say so
    FORWARD = "forward"  # the saga does not have this step: publish to the neighbouring step what this one heard
    STORE_SECRETS = "store_secrets"
    IGNORE = "ignore"
    DONE = "done"
    RETRY = "retry"  # within the round, after a back-off
    STALL = "stall"  # rest until the next round
    PARK = "park"


def decide(task: Task, attempt: StepAttempt, abandoned: bool) -> Decision:
    """Return what to do about a delivery; `abandoned`: an operator has ended its saga before this step heard of it."""
    subscription, event = attempt.subscription, attempt.event
    if task is Task.STORE_SECRETS:
        return Decision.STORE_SECRETS
    if abandoned:
        return Decision.GIVE_UP if subscription.knows(event) else Decision.IGNORE
    if not subscription.knows(event):
        return Decision.FORWARD
    if task is Task.ACT and not subscription.is_next(event):
        return Decision.IGNORE
    return call_to_make(task, attempt)


def call_to_make(task: Task, attempt: StepAttempt) -> Decision:
    """Return COMPENSATE, or ACT for an action; or GIVE_UP once the action's attempts are used up."""
    if task is Task.COMPENSATE:
        return Decision.COMPENSATE
    used_up = attempt.since > attempt.limit and attempt.subscription.may_refuse
    return Decision.GIVE_UP if used_up else Decision.ACT


def after_action(outcome: LocalOutcome, attempt: StepAttempt) -> Decision:
    """Return what follows an attempt of an action that has come to an end."""
    answer, may_refuse = outcome.answer, attempt.subscription.may_refuse
    if answer.status == 422:
        return Decision.PARK
    refused = answer is TOO_LATE or (answer.status == 409 and may_refuse)
    if refused or (answer.status == 200 and outcome.garbled is None):
        return Decision.DONE
    if answer.status in INVALID and may_refuse:
        return Decision.GIVE_UP
    return after_failed_action(attempt)


def after_failed_action(attempt: StepAttempt) -> Decision:
    """Return what follows an attempt of an action that failed or timed out."""
    if attempt.in_round:
        return Decision.RETRY
    return Decision.GIVE_UP if attempt.subscription.may_refuse else _after_round(attempt)


def after_compensation(outcome: LocalOutcome, attempt: StepAttempt) -> Decision:
    """Return what follows an attempt of a compensation that has come to an end."""
    return Decision.DONE if outcome.answer.status == 200 else after_failed_compensation(attempt)


def after_giving_up(outcome: LocalOutcome, giving_up: StepAttempt) -> Decision:
    """Return what follows an attempt at giving an action up.

    Where the action has taken effect after all, it stays if its `done` is published already (ACTION_STAYS), or if
    nobody can undo it (409); then `done` is published now.
    """
    if outcome.answer is ACTION_STAYS:
        return Decision.DONE
    if outcome.answer.status == 409:
        return Decision.CONFIRM_DONE
    return after_compensation(outcome, giving_up)


def after_failed_compensation(attempt: StepAttempt) -> Decision:
    """Return what follows an attempt of a compensation that failed or timed out."""
    return Decision.RETRY if attempt.in_round else _after_round(attempt)


def _after_round(attempt: StepAttempt) -> Decision:
    return Decision.PARK if attempt.rounds >= ROUNDS else Decision.STALL
