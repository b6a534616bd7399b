"""The one workflow: it drives any saga by the state machine that the built-in driver obeys.

What is durable is its history; the saga log is brought up to date by the activities that the workflow needs anyway.

WARNING: Temporal replays a history through this code, which must then decide the same. A change of what it decides
stands behind `workflow.patched`. tests/integration/histories holds histories that it must still be able to replay.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy
from temporalio.converter import value_to_type
from temporalio.exceptions import ActivityError, ApplicationError, CancelledError
from temporalio.exceptions import TimeoutError as ActivityTimeout

with workflow.unsafe.imports_passed_through():
    from saga import progress
    from saga.call import Outcome, Verdict
    from saga.faults.crashes import crash_of
    from saga.machine import CANCEL_REQUESTED, FAULT, RELEASED, Call, Event, State
    from saga.retry import longest
    from saga.runtime.permitted_commands import BY_OPERATOR, refusal, resolved_by_hand, takes_no_result
    from saga.temporal.activities import Activities
    from saga.temporal.journal import Journal
    from saga.temporal.messages import (
        BAD_RESULT,
        CANCEL,
        CONFLICT,
        REPRESENTATION,
        RESOLVE,
        RESUME,
        WORKFLOW,
        AttemptRecord,
        CallActivityInput,
        CallActivityResult,
        WorkflowInput,
    )
    from saga.temporal.search_attributes import search_attributes
    from saga.views.representation import PUBLIC_STATUS, represent

ONCE = RetryPolicy(maximum_attempts=1)
A_FEW_TIMES = RetryPolicy(maximum_attempts=3)
UNTIL_DONE = RetryPolicy(maximum_interval=timedelta(seconds=10))
WRITE_WITHIN = timedelta(seconds=30)  # to write the saga log, with all tries of one statement


@workflow.defn(name=WORKFLOW)
class SagaWorkflow:
    """A saga from its start to its end. The workflow's id is the saga's."""

    @workflow.init
    def __init__(self, workflow_input: WorkflowInput) -> None:
        self._input = workflow_input
        info, random = workflow.info(), workflow.random()
        self._journal = Journal(info.workflow_id, workflow_input, workflow.time, random.random, workflow.patched)
        self._calling: Call | None = None  # the call that an activity is making

    @workflow.run
    async def run(self, workflow_input: WorkflowInput) -> str:
        """Drive the saga to its end, and return its public status then.

        Whoever cancels the workflow itself cancels the saga: it rolls back, and the workflow goes on until it has.
        """
        driving = asyncio.create_task(self._drive())
        while True:
            try:
                return await asyncio.shield(driving)
            except asyncio.CancelledError:
                if driving.done():
                    raise
                if refusal(CANCEL, self._journal.row) is None:
                    self._cancel()

    async def _drive(self) -> str:
        """Make call after call until the saga has ended and the saga log says so."""
        journal = self._journal
        self._show()
        while not journal.ended:
            if journal.stalled:
                await self._rest()
            elif call := journal.next_call():
                await self._make_call(call)
        while journal.projected < journal.seq:
            await self._project(UNTIL_DONE)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return PUBLIC_STATUS[journal.row.state]

    async def _make_call(self, call: Call) -> None:
        """Have an activity make a call, and record what it came to; a cancel meanwhile makes its answer void."""
        self._calling = call
        activity = workflow.start_activity_method(
            Activities.call,
            self._call_input(call),
            activity_id=f"{call.step.name}-{call.direction}-{self._journal.seq}",
            start_to_close_timeout=_longest(call),
            heartbeat_timeout=timedelta(seconds=self._input.timing.lease),
            retry_policy=ONCE,
            cancellation_type=workflow.ActivityCancellationType.TRY_CANCEL,
        )
        await workflow.wait_condition(lambda: activity.done() or self._calling is not call)
        if self._calling is not call:
            activity.cancel()
            return
        self._calling = None
        try:
            self._record_result(call, await activity)
        except ActivityError as error:
            self._record_failed_activity(call, error)
        self._show()

    def _call_input(self, call: Call) -> CallActivityInput:
        """Return the activity's input; an injected crash that will strike is noted first, since it strikes once."""
        journal, state = self._journal, self._journal.saga.state
        crashes = []
        for when in ("before", "after"):
            if name := crash_of(when, call.direction, call.step.name, journal.row):
                crashes.append(when)
                journal.add_line(FAULT, {"fault": name})
                break  # the other one strikes when the call is made again
        deadline = self._input.deadline_at if state is State.EXECUTING else None
        sealing = state is State.SEALING
        timing = self._input.timing
        return CallActivityInput(
            journal.projection(), call, journal.saga.calls, sealing, deadline, timing.lease, crashes,
            journal.results_bytes,
        )  # fmt: skip

    def _record_result(self, call: Call, result: CallActivityResult) -> None:
        journal = self._journal
        journal.mark_projected(result.projected)
        journal.record_attempts(call, result.made)
        if result.overdue:
            event, cause = progress.overdue(call)
            journal.record_event(event, cause=cause)
        elif result.outcome is None:
            journal.add_line(RELEASED)
        else:
            event, cause = progress.answered(journal.saga, call, result.outcome, self._deadline_passed())
            journal.record_event(event, result.outcome.result, cause)

    def _deadline_passed(self) -> bool:
        deadline = self._input.deadline_at
        return deadline is not None and workflow.time() >= deadline

    def _record_failed_activity(self, call: Call, error: ActivityError) -> None:
        """Record a call whose activity gave no result.

        Where the worker died, the attempts are known that its last heartbeat told of, and the call is made again.
        Where the activity raised an error, that is a bug, which must not be repeated for ever: the call is over, and
        its outcome is unknown.
        """
        if isinstance(error.cause, ActivityTimeout):
            for details in error.cause.last_heartbeat_details:
                self._journal.record_attempts(call, value_to_type(list[AttemptRecord], details))
        self._journal.record_interruption()
        if not isinstance(error.cause, (ActivityTimeout, CancelledError)):
            workflow.logger.error("the activity of a call failed", exc_info=error)
            outcome = Outcome(Verdict.UNKNOWN, kind="failed", message="the worker failed at it: its output says why")
            event, cause = progress.answered(self._journal.saga, call, outcome, self._deadline_passed())
            self._journal.record_event(event, cause=cause)

    async def _rest(self) -> None:
        """Wait until the stalled call is due, or until an operator resumes or resolves the saga."""
        journal = self._journal
        await self._project(A_FEW_TIMES)
        self._continue_as_new_if_long()
        rest = max(0.0, (journal.row.due_at or 0.0) - workflow.time())
        try:
            await workflow.wait_condition(lambda: not journal.stalled, timeout=rest)
        except TimeoutError:
            if journal.stalled:  # an operator may have given a command while the log was written
                journal.record_event(Event.RESUMED)
        self._show()

    def _continue_as_new_if_long(self) -> None:
        """Continue in a new history where this one has grown long and all that it holds is in the saga log."""
        up_to_date = self._journal.projected == self._journal.seq and workflow.all_handlers_finished()
        if up_to_date and self._journal.stalled and workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(self._journal.continued_input())

    async def _project(self, policy: RetryPolicy) -> None:
        """Bring the saga log up to date; where that fails, the next activity does it."""
        try:
            # A local activity would not do: it would write to the log what no history has yet.
            known = await workflow.execute_activity_method(
                Activities.project,
                self._journal.projection(),
                start_to_close_timeout=WRITE_WITHIN,
                heartbeat_timeout=timedelta(seconds=self._input.timing.lease),
                retry_policy=policy,
            )
            self._journal.mark_projected(known)
        except ActivityError:
            workflow.logger.warning("the saga log is not up to date")

    def _show(self) -> None:
        """Update the search attributes, for those who look for sagas in Temporal itself."""
        if not self._input.searchable:
            return
        wanted, shown = search_attributes(self._journal.row), workflow.info().typed_search_attributes
        changed = [pair.key.value_set(pair.value) for pair in wanted if shown.get(pair.key) != pair.value]
        if changed:
            workflow.upsert_search_attributes(changed)

    @workflow.query(name=REPRESENTATION)
    def representation(self) -> dict[str, Any]:
        """Return the saga as the API shows it; it is up to date even where the saga log is not."""
        return represent(self._journal.row)

    @workflow.update(name=CANCEL)
    async def cancel(self) -> None:
        """Roll the saga back. While the pivot's outcome is open, that outcome decides, and the wish is only noted."""
        self._cancel()
        await self._project(A_FEW_TIMES)

    @workflow.update(name=RESUME)
    async def resume(self) -> None:
        """Make the call that stalled the saga again, now."""
        self._journal.record_event(Event.RESUMED, detail=BY_OPERATOR)
        await self._project(A_FEW_TIMES)

    @workflow.update(name=RESOLVE)
    async def resolve(self, note: str, result: dict[str, Any] | None = None) -> None:
        """Go on as if the call that stalled the saga had succeeded, with `result` as the action's answer."""
        self._journal.record_event(Event.RESOLVED, result, detail=resolved_by_hand(note, result))
        await self._project(A_FEW_TIMES)

    @cancel.validator
    def _may_cancel(self) -> None:
        self._check_permitted(CANCEL)

    @resume.validator
    def _may_resume(self) -> None:
        self._check_permitted(RESUME)

    @resolve.validator
    def _may_resolve(self, note: str, result: dict[str, Any] | None = None) -> None:
        self._check_permitted(RESOLVE)
        why = takes_no_result(self._journal.row) if result is not None else None
        if why:
            raise ApplicationError(why, type=BAD_RESULT)

    def _check_permitted(self, command: str) -> None:
        """Raise an ApplicationError where the saga's state forbids the command; the update is then not accepted."""
        why = refusal(command, self._journal.row)
        if why:
            raise ApplicationError(why, type=CONFLICT)

    def _cancel(self) -> None:
        journal = self._journal
        cause = progress.cancelled(journal.row)
        if cause is None:
            journal.add_line(CANCEL_REQUESTED, BY_OPERATOR)
            return
        if self._calling:
            self._calling = None  # from now on the call's answer is void
            journal.record_interruption(Event.CANCELLED)
        journal.record_event(Event.CANCELLED, cause=cause, detail=BY_OPERATOR)


def _longest(call: Call) -> timedelta:
    """Return how long the activity of a call can take."""
    step = call.step
    return WRITE_WITHIN + timedelta(seconds=longest(step.timeout, step.retries, step.backoff))
