"""The one workflow: it drives any saga by the state machine that the built-in driver obeys.

Its history is what is durable; the saga log is brought up to date by the activities that it needs anyway. What is
here must do the same on replay: tests/integration/histories holds histories that it must still be able to go on with.
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
    from saga.machine import CANCEL_REQUESTED, FAULT, RELEASED, Call, Event, State
    from saga.retry import longest
    from saga.runtime.permitted_commands import refusal, resolved_by_hand, takes_no_result
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
A_WHILE = RetryPolicy(maximum_attempts=3)
UNTIL_IT_IS_DONE = RetryPolicy(maximum_interval=timedelta(seconds=10))
WRITE_WITHIN = timedelta(seconds=30)  # the saga log, all tries of one statement


@workflow.defn(name=WORKFLOW)
class SagaWorkflow:
    """A saga, from its start to its end; its id is the saga's."""

    @workflow.init
    def __init__(self, workflow_input: WorkflowInput) -> None:
        self._input = workflow_input
        info, random = workflow.info(), workflow.random()
        self._journal = Journal(info.workflow_id, workflow_input, workflow.time, random.random, workflow.patched)
        self._calling: Call | None = None  # the call that an activity is making

    @workflow.run
    async def run(self, workflow_input: WorkflowInput) -> str:
        """Drive the saga; gives its public status at the end. To cancel the workflow itself is to `cancel` it."""
        driving = asyncio.create_task(self._drive())
        while True:
            try:
                return await asyncio.shield(driving)
            except asyncio.CancelledError:
                if driving.done():
                    raise
                if refusal(CANCEL, self._journal.record) is None:
                    self._cancel()

    async def _drive(self) -> str:
        journal = self._journal
        self._show()
        while not journal.ended:
            if journal.stalled:
                await self._rest()
            elif call := journal.next_call():
                await self._make(call)
        while journal.projected < journal.seq:
            await self._project(UNTIL_IT_IS_DONE)
        await workflow.wait_condition(workflow.all_handlers_finished)
        return PUBLIC_STATUS[journal.record.state]

    async def _make(self, call: Call) -> None:
        """Make a call, unless the saga is taken away from it meanwhile."""
        self._calling = call
        activity = workflow.start_activity_method(
            Activities.call,
            self._call_input(call),
            activity_id=f"{call.step.name}-{call.direction}-{self._journal.seq}",
            start_to_close_timeout=self._longest(call),
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
            self._answered(call, await activity)
        except ActivityError as error:
            self._lost(call, error)
        self._show()

    def _call_input(self, call: Call) -> CallActivityInput:
        journal, state = self._journal, self._journal.saga.state
        crashes = []
        for when in ("before", "after"):
            if name := progress.fault(when, call, journal.record.definition.faults, journal.record.context.faults):
                crashes.append(when)
                journal.note(FAULT, {"fault": name})
                break  # the other one strikes when the call is made again
        deadline = self._input.deadline_at if state is State.EXECUTING else None
        sealing = state is State.SEALING
        timing = self._input.timing
        return CallActivityInput(
            journal.projection(), call, journal.saga.calls, sealing, deadline, timing.lease, crashes,
            journal.results_bytes,
        )  # fmt: skip

    def _longest(self, call: Call) -> timedelta:
        step = call.step
        return WRITE_WITHIN + timedelta(seconds=longest(step.timeout, step.retries, step.backoff))

    def _answered(self, call: Call, answered: CallActivityResult) -> None:
        journal = self._journal
        journal.is_projected(answered.projected)
        journal.tried(call, answered.made)
        if answered.overdue:
            event, cause = progress.overdue(call)
            journal.move(event, cause=cause)
        elif answered.outcome is None:
            journal.note(RELEASED)
        else:
            event, cause = progress.answered(journal.saga, call, answered.outcome, self._late())
            journal.move(event, answered.outcome.result, cause)

    def _late(self) -> bool:
        deadline = self._input.deadline_at
        return deadline is not None and workflow.time() >= deadline

    def _lost(self, call: Call, error: ActivityError) -> None:
        """The worker has died: of the call's attempts, those are known that its last heartbeat told of.

        Where the activity failed otherwise the call is over, and what it came to is unknown: a bug, which must not
        be repeated for ever.
        """
        if isinstance(error.cause, ActivityTimeout):
            for details in error.cause.last_heartbeat_details:
                self._journal.tried(call, value_to_type(list[AttemptRecord], details))
        self._journal.interrupted()
        if not isinstance(error.cause, (ActivityTimeout, CancelledError)):
            workflow.logger.error("the activity of a call failed", exc_info=error)
            outcome = Outcome(Verdict.UNKNOWN, kind="failed", message="the worker failed at it: its output says why")
            event, cause = progress.answered(self._journal.saga, call, outcome, self._late())
            self._journal.move(event, cause=cause)

    async def _rest(self) -> None:
        """Until the stalled call is due, or an operator has his word."""
        journal = self._journal
        await self._project(A_WHILE)
        self._grow_no_further()
        rest = max(0.0, (journal.record.due_at or 0.0) - workflow.time())
        try:
            await workflow.wait_condition(lambda: not journal.stalled, timeout=rest)
        except TimeoutError:
            if journal.stalled:  # no operator had his word while the log was written
                journal.move(Event.RESUMED)
        self._show()

    def _grow_no_further(self) -> None:
        """Go on in a new history where this one has become long."""
        up_to_date = self._journal.projected == self._journal.seq and workflow.all_handlers_finished()
        if up_to_date and self._journal.stalled and workflow.info().is_continue_as_new_suggested():
            workflow.continue_as_new(self._journal.continued())

    async def _project(self, policy: RetryPolicy) -> None:
        """Bring the saga log up to date; where it is away, a later one does."""
        try:
            known = await workflow.execute_activity_method(  # a local one would write what no history has yet
                Activities.project,
                self._journal.projection(),
                start_to_close_timeout=WRITE_WITHIN,
                heartbeat_timeout=timedelta(seconds=self._input.timing.lease),
                retry_policy=policy,
            )
            self._journal.is_projected(known)
        except ActivityError:
            workflow.logger.warning("the saga log is not up to date")

    def _show(self) -> None:
        """To those who look for sagas in Temporal itself."""
        if not self._input.searchable:
            return
        wanted, shown = search_attributes(self._journal.record), workflow.info().typed_search_attributes
        changed = [pair.key.value_set(pair.value) for pair in wanted if shown.get(pair.key) != pair.value]
        if changed:
            workflow.upsert_search_attributes(changed)

    @workflow.query(name=REPRESENTATION)
    def representation(self) -> dict[str, Any]:
        """The saga as the API shows it; up to date even where the saga log is not."""
        return represent(self._journal.record)

    @workflow.update(name=CANCEL)
    async def cancel(self) -> None:
        """Roll the saga back. While the pivot's outcome is open it decides, and the wish is only noted."""
        self._cancel()
        await self._project(A_WHILE)

    @workflow.update(name=RESUME)
    async def resume(self) -> None:
        """Make the call that stalled the saga again, now."""
        self._journal.move(Event.RESUMED, detail={"by": "operator"})
        await self._project(A_WHILE)

    @workflow.update(name=RESOLVE)
    async def resolve(self, note: str, result: dict[str, Any] | None = None) -> None:
        """Go on as if the call that stalled the saga had succeeded; `result`: as if its action had answered so."""
        self._journal.move(Event.RESOLVED, result, detail=resolved_by_hand(note, result))
        await self._project(A_WHILE)

    @cancel.validator
    def _may_cancel(self) -> None:
        self._refuse(CANCEL)

    @resume.validator
    def _may_resume(self) -> None:
        self._refuse(RESUME)

    @resolve.validator
    def _may_resolve(self, note: str, result: dict[str, Any] | None = None) -> None:
        self._refuse(RESOLVE)
        why = takes_no_result(self._journal.record) if result is not None else None
        if why:
            raise ApplicationError(why, type=BAD_RESULT)

    def _refuse(self, verb: str) -> None:
        why = refusal(verb, self._journal.record)
        if why:
            raise ApplicationError(why, type=CONFLICT)

    def _cancel(self) -> None:
        journal = self._journal
        by = {"by": "operator"}
        if journal.saga.state is not State.EXECUTING:
            journal.note(CANCEL_REQUESTED, by)
            return
        if self._calling:
            self._calling = None  # its answer counts no more
            journal.interrupted(Event.CANCELLED)
        step = journal.record.definition.steps[journal.saga.cursor].name
        journal.move(Event.CANCELLED, cause=progress.cancelled(step), detail=by)
