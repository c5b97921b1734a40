//! Who looked at what: a line in the log for each user and place, at most one a minute, with how often since.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use actors::clock;
use tracing::info;

const QUIET: Duration = Duration::from_secs(60);
/// Places that are remembered; beyond that all are forgotten, which costs a few more lines.
const MOST: usize = 4_096;

/// Who looked where, and when that was said.
#[derive(Default)]
pub struct Audit(Mutex<HashMap<(String, String), (Instant, u64)>>);

impl Audit {
    /// A user looks. `what`: the path, without its query.
    pub fn looked(&self, user: &str, what: &str) {
        if let Some(silent) = self.news(user, what) {
            info!(target: "audit", user, what, silent, "looked at actors");
        }
    }

    /// How often it was not said since the last time; `None` when it is not said now either.
    fn news(&self, user: &str, what: &str) -> Option<u64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST {
            seen.clear();
        }
        let now = clock::tick();
        match seen.get_mut(&(user.to_owned(), what.to_owned())) {
            Some((at, silent)) if now.duration_since(*at) < QUIET => {
                *silent += 1;
                None
            }
            Some((at, silent)) => {
                *at = now;
                Some(std::mem::take(silent))
            }
            None => {
                seen.insert((user.to_owned(), what.to_owned()), (now, 0));
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_look_is_said_once_and_another_one_too() {
        let audit = Audit::default();
        let said =
            [("ada", "/a"), ("ada", "/a"), ("ada", "/b"), ("bob", "/a")].map(|(user, what)| audit.news(user, what));
        assert_eq!(said, [Some(0), None, Some(0), Some(0)]);
    }
}
