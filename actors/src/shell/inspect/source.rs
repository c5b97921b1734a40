//! Who sends: the actor, link, API or timer that the running code works for. Known to the task, so that no call has to carry it.

use std::{fmt, future::Future, sync::Arc};

use serde::Serialize;

/// The sender of messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// An actor's kind, or one of `api`, `link`, `timer`, `outside`.
    pub kind: &'static str,
    /// Empty where the kind says it all.
    pub id: Arc<str>,
}

tokio::task_local! {
    static PRESENT: Source;
}

impl Source {
    /// A sender of that kind and id.
    #[must_use]
    pub fn new(kind: &'static str, id: &str) -> Self {
        Self { kind, id: id.into() }
    }

    /// What the running code works for; `outside` where nobody said.
    #[must_use]
    pub fn present() -> Self {
        PRESENT.try_with(Self::clone).unwrap_or_else(|_| Self::outside())
    }

    fn outside() -> Self {
        Self { kind: "outside", id: Arc::default() }
    }

    pub(crate) fn timer() -> Self {
        Self { kind: "timer", id: Arc::default() }
    }

    /// Runs `call` as this sender.
    pub fn within<T>(&self, call: impl FnOnce() -> T) -> T {
        PRESENT.sync_scope(self.clone(), call)
    }

    /// Runs `future` as this sender.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        PRESENT.scope(self, future)
    }
}

impl fmt::Display for Source {
    /// "machine/4xk9qd", "api"
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.id.is_empty() { f.write_str(self.kind) } else { write!(f, "{}/{}", self.kind, self.id) }
    }
}

impl Serialize for Source {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
