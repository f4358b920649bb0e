//! What a custom runtime may ask for when: a pure state machine.
//!
//! ```text
//! Starting --next--> Ready --(event)--> Running --response|error--> Answered --next--> Ready
//!     '--init/error--> Failed              '--response, as it comes--> Streaming --its end--^
//! ```

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
    /// The runtime asked for its first event.
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
    Ready,
    Running,
    Streaming,
    Answered,
    Failed,
}

/// The state of one runtime.
#[derive(Debug, Default)]
pub(crate) struct State {
    phase: Phase,
    /// Waits for the runtime to ask.
    offered: Option<Event>,
    /// The last invocation that the runtime was given.
    current: Option<String>,
    answer: Option<Answer>,
    /// Where a streamed response goes, if the caller wants it as it comes.
    outlet: Option<Outlet>,
    init_error: Option<FunctionError>,
}

impl State {
    /// The platform has an event, and a place for a streamed response if that is wanted.
    pub(crate) fn offer(&mut self, event: Event, outlet: Option<Outlet>) {
        self.answer = None;
        self.offered = Some(event);
        self.outlet = outlet;
    }

    /// The runtime asks for an event; `None` if it has to wait.
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Refusal> {
        if matches!(self.phase, Phase::Running | Phase::Streaming | Phase::Failed) {
            return Err(Refusal::Transition);
        }
        let event = self.offered.take();
        self.phase = if event.is_some() { Phase::Running } else { Phase::Ready };
        if let Some(event) = &event {
            self.current = Some(event.request_id.clone());
        }
        Ok(event)
    }

    /// Whether the runtime may answer `request_id` now.
    pub(crate) fn check(&self, request_id: &str) -> Result<(), Refusal> {
        if self.current.as_deref() != Some(request_id) {
            return Err(Refusal::RequestId);
        }
        if self.phase != Phase::Running {
            return Err(Refusal::Transition);
        }
        Ok(())
    }

    /// The runtime begins to stream its answer: nothing else can answer then. Gives the place for
    /// it, if it is wanted as it comes.
    pub(crate) fn stream(&mut self, request_id: &str) -> Result<Option<Outlet>, Refusal> {
        self.check(request_id)?;
        let outlet = self.outlet.take();
        if outlet.is_some() {
            self.phase = Phase::Streaming;
        }
        Ok(outlet)
    }

    /// What was streamed has come to an end; only who began it calls this. Of no effect when the
    /// invocation is over.
    pub(crate) fn end_stream(&mut self, request_id: &str, answer: Answer) {
        let is_current = self.current.as_deref() == Some(request_id);
        if is_current && self.phase == Phase::Streaming {
            self.phase = Phase::Answered;
            self.answer = Some(answer);
        }
    }

    /// The runtime answers.
    pub(crate) fn answer(&mut self, request_id: &str, answer: Answer) -> Result<(), Refusal> {
        self.check(request_id)?;
        self.phase = Phase::Answered;
        self.answer = Some(answer);
        Ok(())
    }

    /// The runtime cannot start.
    pub(crate) fn fail_init(&mut self, error: FunctionError) -> Result<(), Refusal> {
        if self.phase != Phase::Starting {
            return Err(Refusal::Transition);
        }
        self.phase = Phase::Failed;
        self.init_error = Some(error);
        Ok(())
    }

    /// Gives the answer to the platform, once.
    pub(crate) fn take_answer(&mut self) -> Option<Answer> {
        self.answer.take()
    }

    /// Whether an answer waits to be taken.
    pub(crate) fn has_answer(&self) -> bool {
        self.answer.is_some()
    }

    /// How the init phase ended, if it has.
    pub(crate) fn readiness(&self) -> Option<Readiness> {
        match (&self.init_error, self.phase) {
            (Some(error), _) => Some(Readiness::Failed(error.clone())),
            (None, Phase::Starting) => None,
            (None, _) => Some(Readiness::Ready),
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
        let mut state = State::default();
        assert_eq!(state.readiness(), None);
        assert_eq!(state.next(), Ok(None));
        assert_eq!(state.readiness(), Some(Readiness::Ready));
        for id in ["a", "b"] {
            state.offer(event(id), None);
            assert_eq!(state.next(), Ok(Some(event(id))));
            assert_eq!(state.answer(id, returned("x")), Ok(()));
            assert_eq!(state.take_answer(), Some(returned("x")));
            assert_eq!(state.take_answer(), None);
        }
    }

    #[test]
    fn a_second_next_during_an_invocation_is_refused() {
        let mut state = State::default();
        state.offer(event("a"), None);
        assert!(state.next().expect("allowed").is_some());
        assert_eq!(state.next(), Err(Refusal::Transition));
    }

    #[test]
    fn an_answer_needs_the_id_and_the_moment() {
        let mut state = State::default();
        assert_eq!(state.answer("a", returned("x")), Err(Refusal::RequestId));
        state.offer(event("a"), None);
        assert!(state.next().expect("allowed").is_some());
        assert_eq!(state.answer("b", returned("x")), Err(Refusal::RequestId));
        assert_eq!(state.answer("a", returned("x")), Ok(()));
        assert_eq!(state.answer("a", returned("y")), Err(Refusal::Transition));
        assert_eq!(state.take_answer(), Some(returned("x")));
    }

    #[test]
    fn an_init_fails_only_before_the_first_event() {
        let error = FunctionError::of_platform("Runtime.NoSuchHandler", "no");
        let mut state = State::default();
        assert_eq!(state.fail_init(error.clone()), Ok(()));
        assert_eq!(state.readiness(), Some(Readiness::Failed(error.clone())));
        assert_eq!(state.next(), Err(Refusal::Transition));
        let mut state = State::default();
        assert_eq!(state.next(), Ok(None));
        assert_eq!(state.fail_init(error), Err(Refusal::Transition));
    }
}
