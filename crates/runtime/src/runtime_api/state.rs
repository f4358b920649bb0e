//! What a custom runtime may ask for when: a pure state machine.
//!
//! ```text
//! Starting --next--> Ready --(event)--> Running --response|error--> Answered --next--> Ready
//!     '--init/error--> Failed              '--response, as it comes--> Streaming --its end--^
//! ```
//!
//! With SnapStart what is initialised may wait to be copied (`restore/next`), and a copy of it begins there:
//!
//! ```text
//! Starting --restore/next--> Standing      Restoring --next--> Ready
//!                                              '--restore/error--> Failed
//! ```
//!
//! Who serves several invocations at a time goes round so with each of them, told apart by their ids.

use std::collections::VecDeque;

use bytes::Bytes;

use lacewing_model::FunctionError;

use crate::stream::Outlet;

/// One invocation as the runtime is told of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) request_id: String,
    pub(crate) deadline_ms: i64,
    pub(crate) arn: String,
    pub(crate) trace: Option<String>,
    pub(crate) client_context: Option<String>,
    pub(crate) payload: Bytes,
}

/// How the runtime answered an invocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The handler returned this.
    Returned(Bytes),
    /// The runtime reported an error.
    Failed(FunctionError),
    /// The answer was larger than allowed.
    TooLarge,
    /// It ended early.
    Truncated,
    /// All of it went out as it came.
    Streamed,
    /// As much as is allowed went out as it came, and more is coming.
    StreamTooLarge,
    /// What came is no answer.
    Broken,
}

/// How the init phase ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// The runtime asked for its first event, or waits to be copied.
    Ready,
    /// The runtime reported that it cannot start.
    Failed(FunctionError),
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It names another invocation than the one under way.
    RequestId,
    /// It cannot be made in this state.
    Transition,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Starting,
    /// It waits to be copied.
    Standing,
    /// It is a copy that does what is to be done in each.
    Restoring,
    Ready,
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    Streaming,
    Answered,
}

/// An invocation that the runtime was given.
#[derive(Debug)]
struct Run {
    id: String,
    stage: Stage,
    answer: Option<Answer>,
    /// Where a streamed response goes, if the caller wants it as it comes.
    outlet: Option<Outlet>,
}

/// The state of one runtime.
#[derive(Debug)]
pub(crate) struct State {
    phase: Phase,
    /// How many invocations may be under way.
    most: usize,
    /// Wait for the runtime to ask.
    offered: VecDeque<(Event, Option<Outlet>)>,
    /// Those under way, and until the next one begins those before it.
    runs: Vec<Run>,
    init_error: Option<FunctionError>,
}

impl State {
    /// That of a runtime which serves so many invocations at a time.
    pub(crate) fn new(most: usize) -> Self {
        let (offered, runs) = (VecDeque::new(), Vec::new());
        Self { phase: Phase::default(), most, offered, runs, init_error: None }
    }

    /// That of a copy of a runtime which stands.
    pub(crate) fn restored(most: usize) -> Self {
        Self { phase: Phase::Restoring, ..Self::new(most) }
    }

    /// The platform has an event, and a place for a streamed response if that is wanted.
    pub(crate) fn offer(&mut self, event: Event, outlet: Option<Outlet>) {
        self.offered.push_back((event, outlet));
    }

    /// Nobody waits for the answer any more: an event that was not asked for yet is not given out.
    pub(crate) fn withdraw(&mut self, request_id: &str) {
        self.offered.retain(|(event, _)| event.request_id != request_id);
    }

    /// The runtime asks for an event; `None` if it has to wait. Only who serves one invocation after
    /// the other is told that it has not answered the last one.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Refusal> {
        let is_busy = self.most == 1 && self.runs.iter().any(|run| run.stage != Stage::Answered);
        if matches!(self.phase, Phase::Failed | Phase::Standing) || is_busy {
            return Err(Refusal::Transition);
        }
        self.phase = Phase::Ready;
        let Some((event, outlet)) = self.offered.pop_front() else { return Ok(None) };
        self.runs.retain(|run| run.stage != Stage::Answered || run.answer.is_some());
        let id = event.request_id.clone();
        self.runs.push(Run { id, stage: Stage::Running, answer: None, outlet });
        Ok(Some(event))
    }

    /// Whether the runtime may answer `request_id` now.
    pub(crate) fn check(&self, request_id: &str) -> Result<(), Refusal> {
        let run = self.runs.iter().find(|run| run.id == request_id);
        match run.ok_or(Refusal::RequestId)?.stage {
            Stage::Running => Ok(()),
            Stage::Streaming | Stage::Answered => Err(Refusal::Transition),
        }
    }

    /// The runtime begins to stream its answer: nothing else can answer then. Gives the place for
    /// it, if it is wanted as it comes.
    pub(crate) fn stream(&mut self, request_id: &str) -> Result<Option<Outlet>, Refusal> {
        let run = self.running(request_id)?;
        let outlet = run.outlet.take();
        if outlet.is_some() {
            run.stage = Stage::Streaming;
        }
        Ok(outlet)
    }

    /// What was streamed has come to an end; only who began it calls this. Of no effect when the
    /// invocation is over.
    pub(crate) fn end_stream(&mut self, request_id: &str, answer: Answer) {
        let is_its = |run: &&mut Run| run.id == request_id && run.stage == Stage::Streaming;
        if let Some(run) = self.runs.iter_mut().find(is_its) {
            run.stage = Stage::Answered;
            run.answer = Some(answer);
        }
    }

    /// The runtime answers.
    pub(crate) fn answer(&mut self, request_id: &str, answer: Answer) -> Result<(), Refusal> {
        let run = self.running(request_id)?;
        run.stage = Stage::Answered;
        run.answer = Some(answer);
        Ok(())
    }

    /// The runtime cannot start.
    pub(crate) fn fail_init(&mut self, error: FunctionError) -> Result<(), Refusal> {
        self.fail(Phase::Starting, error)
    }

    /// The runtime is initialised and waits to be copied; whether it is a copy that goes on.
    pub(crate) fn stand(&mut self) -> Result<bool, Refusal> {
        match self.phase {
            Phase::Starting => self.phase = Phase::Standing,
            Phase::Restoring => return Ok(true),
            Phase::Standing => {}
            Phase::Ready | Phase::Failed => return Err(Refusal::Transition),
        }
        Ok(false)
    }

    /// A copy cannot go on.
    pub(crate) fn fail_restore(&mut self, error: FunctionError) -> Result<(), Refusal> {
        self.fail(Phase::Restoring, error)
    }

    fn fail(&mut self, from: Phase, error: FunctionError) -> Result<(), Refusal> {
        if self.phase != from {
            return Err(Refusal::Transition);
        }
        self.phase = Phase::Failed;
        self.init_error = Some(error);
        Ok(())
    }

    /// Gives an answer to the platform, once.
    pub(crate) fn take_answer(&mut self, request_id: &str) -> Option<Answer> {
        self.runs.iter_mut().find(|run| run.id == request_id)?.answer.take()
    }

    /// Whether an answer waits to be taken.
    pub(crate) fn has_answer(&self) -> bool {
        self.runs.iter().any(|run| run.answer.is_some())
    }

    fn running(&mut self, request_id: &str) -> Result<&mut Run, Refusal> {
        self.check(request_id)?;
        self.runs.iter_mut().find(|run| run.id == request_id).ok_or(Refusal::RequestId)
    }

    /// How the init phase ended, if it has.
    pub(crate) fn readiness(&self) -> Option<Readiness> {
        match (&self.init_error, self.phase) {
            (Some(error), _) => Some(Readiness::Failed(error.clone())),
            (None, Phase::Starting | Phase::Restoring) => None,
            (None, Phase::Standing | Phase::Ready | Phase::Failed) => Some(Readiness::Ready),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: &str) -> Event {
        Event { request_id: id.to_owned(), ..Event::default() }
    }

    fn returned(text: &'static str) -> Answer {
        Answer::Returned(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_runtime_goes_round_from_event_to_event() {
        let mut state = State::new(1);
        assert_eq!(state.readiness(), None);
        assert_eq!(state.next(), Ok(None));
        assert_eq!(state.readiness(), Some(Readiness::Ready));
        for id in ["a", "b"] {
            state.offer(event(id), None);
            assert_eq!(state.next(), Ok(Some(event(id))));
            assert_eq!(state.answer(id, returned("x")), Ok(()));
            assert_eq!(state.take_answer(id), Some(returned("x")));
            assert_eq!(state.take_answer(id), None);
        }
    }

    #[test]
    fn a_second_next_during_an_invocation_is_refused() {
        let mut state = State::new(1);
        state.offer(event("a"), None);
        assert!(state.next().expect("allowed").is_some());
        assert_eq!(state.next(), Err(Refusal::Transition));
    }

    #[test]
    fn an_answer_needs_the_id_and_the_moment() {
        let mut state = State::new(1);
        assert_eq!(state.answer("a", returned("x")), Err(Refusal::RequestId));
        state.offer(event("a"), None);
        assert!(state.next().expect("allowed").is_some());
        assert_eq!(state.answer("b", returned("x")), Err(Refusal::RequestId));
        assert_eq!(state.answer("a", returned("x")), Ok(()));
        assert_eq!(state.answer("a", returned("y")), Err(Refusal::Transition));
        assert_eq!(state.take_answer("a"), Some(returned("x")));
    }

    #[test]
    fn several_invocations_are_told_apart_by_their_ids() {
        let mut state = State::new(2);
        for id in ["a", "b", "c"] {
            state.offer(event(id), None);
        }
        assert_eq!(state.next(), Ok(Some(event("a"))));
        assert_eq!(state.next(), Ok(Some(event("b"))));
        state.withdraw("c");
        assert_eq!(state.next(), Ok(None));
        assert_eq!(state.answer("b", returned("y")), Ok(()));
        assert_eq!(state.take_answer("a"), None);
        assert_eq!(state.answer("c", returned("z")), Err(Refusal::RequestId));
        // An answer waits for its taker, whatever begins meanwhile.
        state.offer(event("d"), None);
        assert_eq!(state.next(), Ok(Some(event("d"))));
        assert_eq!(state.take_answer("b"), Some(returned("y")));
        assert_eq!(state.answer("b", returned("y")), Err(Refusal::Transition));
        for id in ["a", "d"] {
            assert_eq!(state.answer(id, returned("x")), Ok(()));
            assert_eq!(state.take_answer(id), Some(returned("x")));
        }
        // Of what is over nothing is left when the next one begins.
        state.offer(event("e"), None);
        assert_eq!(state.next(), Ok(Some(event("e"))));
        assert_eq!(state.answer("a", returned("x")), Err(Refusal::RequestId));
    }

    #[test]
    fn an_init_fails_only_before_the_first_event() {
        let error = FunctionError::of_platform("Runtime.NoSuchHandler", "no");
        let mut state = State::new(1);
        assert_eq!(state.fail_init(error.clone()), Ok(()));
        assert_eq!(state.readiness(), Some(Readiness::Failed(error.clone())));
        assert_eq!(state.next(), Err(Refusal::Transition));
        let mut state = State::new(1);
        assert_eq!(state.next(), Ok(None));
        assert_eq!(state.fail_init(error), Err(Refusal::Transition));
    }

    #[test]
    fn a_copy_begins_where_what_was_copied_stands() {
        let error = FunctionError::of_platform("Runtime.AfterRestoreError", "no");
        let mut state = State::new(1);
        assert_eq!(state.fail_restore(error.clone()), Err(Refusal::Transition));
        assert_eq!((state.stand(), state.stand()), (Ok(false), Ok(false)));
        assert_eq!(state.readiness(), Some(Readiness::Ready));
        assert_eq!(state.next(), Err(Refusal::Transition), "it waits for something else");
        assert_eq!(state.fail_init(error.clone()), Err(Refusal::Transition));
        let mut copy = State::restored(1);
        assert_eq!((copy.stand(), copy.readiness()), (Ok(true), None));
        assert_eq!(copy.fail_init(error.clone()), Err(Refusal::Transition));
        assert_eq!(copy.next(), Ok(None));
        assert_eq!(copy.readiness(), Some(Readiness::Ready));
        assert_eq!(copy.stand(), Err(Refusal::Transition));
        assert_eq!(copy.fail_restore(error.clone()), Err(Refusal::Transition));
        let mut failed = State::restored(1);
        assert_eq!(failed.fail_restore(error.clone()), Ok(()));
        assert_eq!(failed.readiness(), Some(Readiness::Failed(error)));
        assert_eq!(failed.next(), Err(Refusal::Transition));
    }
}
