//! A conversation as a value: an async function whose only awaits are its own questions. Who holds it carries them out, with sockets or
//! without: no runtime, no I/O, no clock here.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

/// A conversation: asks `Q`, hears `A`, ends with `T`.
pub struct Dialogue<Q, A, T> {
    desk: Asker<Q, A>,
    /// `None`: it has ended.
    script: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
}

/// What follows.
#[derive(Debug)]
pub enum Then<Q, T> {
    /// Carry this out; [`Dialogue::step`] hears what came of it.
    Ask(Q),
    Ended(T),
    /// It has ended before, or waits for an answer that was not given.
    Still,
}

/// The script's end: where it asks. Cloned freely.
pub struct Asker<Q, A>(Arc<Mutex<Slot<Q, A>>>);

struct Slot<Q, A> {
    question: Option<Q>,
    answer: Option<A>,
}

impl<Q, A> Default for Asker<Q, A> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Slot { question: None, answer: None })))
    }
}

impl<Q, A> Clone for Asker<Q, A> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<Q, A> fmt::Debug for Asker<Q, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asker")
    }
}

impl<Q, A, T> fmt::Debug for Dialogue<Q, A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dialogue")
    }
}

impl<Q, A> Asker<Q, A> {
    /// Asks, and waits for what comes of it.
    pub async fn ask(&self, question: Q) -> A {
        self.slot(|slot| slot.question = Some(question));
        std::future::poll_fn(|_| self.slot(|slot| slot.answer.take()).map_or(Poll::Pending, Poll::Ready)).await
    }

    fn slot<R>(&self, change: impl FnOnce(&mut Slot<Q, A>) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<Q, A, T> Dialogue<Q, A, T> {
    /// A conversation that has not begun.
    pub fn new<F: Future<Output = T> + Send + 'static>(script: impl FnOnce(Asker<Q, A>) -> F) -> Self {
        let desk = Asker::default();
        let script = script(desk.clone());
        Self { desk, script: Some(Box::pin(script)) }
    }

    /// Goes on with the answer to the last question; the first time without one.
    pub fn step(&mut self, answer: Option<A>) -> Then<Q, T> {
        let Some(script) = &mut self.script else { return Then::Still };
        self.desk.slot(|slot| slot.answer = answer);
        match script.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => {
                self.script = None;
                Then::Ended(end)
            }
            Poll::Pending => self.desk.slot(|slot| slot.question.take()).map_or(Then::Still, Then::Ask),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_hears_and_ends_once() {
        let mut sum = Dialogue::<u8, u8, u8>::new(|desk| async move { desk.ask(1).await + desk.ask(2).await });
        assert!(matches!(sum.step(None), Then::Ask(1)));
        assert!(matches!(sum.step(None), Then::Still), "no answer, no progress");
        assert!(matches!(sum.step(Some(20)), Then::Ask(2)));
        assert!(matches!(sum.step(Some(22)), Then::Ended(42)));
        assert!(matches!(sum.step(Some(1)), Then::Still));
    }
}
