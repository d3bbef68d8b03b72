//! Follows the requests of one connection from their bytes to their answers' last bytes. Answers go out in the order of requests, so
//! two queues are enough; the clock is read once for all that were read, or written, together.

use std::collections::VecDeque;
use std::time::Instant;

use crate::api::Response;
use crate::metrics::{Handled, Pending, RequestTimes};

/// The requests of a connection that are not answered, or whose answers are not sent.
pub(super) struct RequestClock {
    /// `None`: nobody counts.
    times: Option<RequestTimes>,
    /// When bytes were last read.
    read: Instant,
    /// What was dispatched and is not answered; `None`: it is not counted (a part of an authentication).
    unanswered: VecDeque<Option<Pending>>,
    /// What is answered and not sent: behind so many bytes.
    unsent: VecDeque<(u64, Pending)>,
    /// The answer that is being queued.
    answered: Option<Pending>,
    /// Bytes of answers so far, and of those that were not written at the last look.
    queued_bytes: u64,
    unwritten_bytes: u64,
}

impl RequestClock {
    pub(super) fn new(times: Option<RequestTimes>) -> Self {
        Self {
            times,
            read: Instant::now(),
            unanswered: VecDeque::new(),
            unsent: VecDeque::new(),
            answered: None,
            queued_bytes: 0,
            unwritten_bytes: 0,
        }
    }

    /// Bytes were read.
    pub(super) fn read(&mut self, now: tokio::time::Instant) {
        self.read = now.into_std();
    }

    /// A frame was dispatched; `handled`: it was a request.
    pub(super) fn dispatched(&mut self, handled: Option<Handled>, bytes: usize, is_answered: bool) {
        let Some(times) = &self.times else { return };
        let pending = handled.and_then(|handled| times.dispatched(handled, self.read, bytes, is_answered));
        if is_answered {
            self.unanswered.push_back(pending);
        }
    }

    /// The answer of the oldest request is there, since `now` or (`None`) since its handler returned.
    pub(super) fn answered(&mut self, now: Option<tokio::time::Instant>, response: &Response) {
        let Some(times) = &self.times else { return };
        let pending = self.unanswered.pop_front().flatten();
        let now = now.map(tokio::time::Instant::into_std);
        self.answered =
            pending.map(|pending| times.answered(pending, now, &response.errors, response.mute_ms));
    }

    /// That answer is queued; so many bytes are now unwritten.
    pub(super) fn queued(&mut self, unwritten_bytes: u64) {
        if self.times.is_none() {
            return;
        }
        self.queued_bytes += unwritten_bytes.saturating_sub(self.unwritten_bytes);
        self.unwritten_bytes = unwritten_bytes;
        if let Some(pending) = self.answered.take() {
            self.unsent.push_back((self.queued_bytes, pending));
        }
    }

    /// So many bytes are still unwritten.
    pub(super) fn written(&mut self, unwritten_bytes: u64) {
        self.unwritten_bytes = unwritten_bytes;
        let Some(times) = &self.times else { return };
        let sent_bytes = self.queued_bytes.saturating_sub(unwritten_bytes);
        if self.unsent.front().is_none_or(|(end, _)| *end > sent_bytes) {
            return;
        }
        let now = Instant::now();
        while let Some((_, pending)) = self.unsent.front().copied().filter(|(end, _)| *end <= sent_bytes) {
            self.unsent.pop_front();
            times.sent(pending, now);
        }
    }
}

impl Drop for RequestClock {
    fn drop(&mut self) {
        if let Some(times) = &self.times {
            for pending in self.unanswered.drain(..).flatten() {
                times.dropped(pending);
            }
        }
    }
}
