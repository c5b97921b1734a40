//! One step as rings keep it: the event's name, who sent it, how it ended, how long it took. Never its content.

use std::sync::Arc;

use schema::time::Timestamp;
use serde::Serialize;

use super::Source;
use crate::core::{TraceId, Verdict};

/// One step in an actor's ring.
#[derive(Debug, Clone, Serialize)]
pub struct StepTrace {
    /// Counts the actor's steps up from 1.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// The event's name, without its content.
    #[serde(serialize_with = "super::text")]
    pub event: Arc<str>,
    pub sender: Source,
    /// The state before.
    #[serde(serialize_with = "super::text")]
    pub from: Arc<str>,
    /// The state after.
    #[serde(serialize_with = "super::text")]
    pub to: Arc<str>,
    #[serde(flatten)]
    pub outcome: Outcome,
    /// Microseconds in the mailbox.
    pub waited_us: u64,
    /// Microseconds from decision to shown, the record included.
    pub took_us: u64,
    #[serde(serialize_with = "super::text")]
    pub trace: TraceId,
}

/// A verdict in short.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict", content = "why")]
pub enum Outcome {
    Moved,
    Waiting(Box<str>),
    Ignored(Box<str>),
    Refused(Box<str>),
}

impl Outcome {
    pub(crate) fn of(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Moved => Self::Moved,
            Verdict::Waiting(wait) => Self::Waiting(wait.what.as_str().into()),
            Verdict::Ignored { why } => Self::Ignored(why.as_str().into()),
            Verdict::Refused { why, .. } => Self::Refused(why.as_str().into()),
        }
    }

    /// The verdict's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Moved => "moved",
            Self::Waiting(_) => "waiting",
            Self::Ignored(_) => "ignored",
            Self::Refused(_) => "refused",
        }
    }

    /// What is waited for, or the reason; empty for a plain move.
    #[must_use]
    pub fn why(&self) -> &str {
        match self {
            Self::Moved => "",
            Self::Waiting(why) | Self::Ignored(why) | Self::Refused(why) => why,
        }
    }
}
