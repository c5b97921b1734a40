//! Things that go out at once after a quiet while, and gathered when they come close together. Pure but for [`Pace::waits`].

use std::time::{Duration, Instant};

/// One kind of thing to one receiver.
pub(super) struct Pace {
    least: Duration,
    apart: Duration,
    last: Option<Instant>,
    held: bool,
}

impl Pace {
    pub(super) const fn new(apart: Duration) -> Self {
        Self { least: apart, apart, last: None, held: false }
    }

    /// The things are that far apart from now on, where that is more than the pace's own time.
    pub(super) fn at_least(&mut self, apart: Duration) {
        self.apart = self.least.max(apart);
    }

    /// Whether something goes out now: there is `news`, or there was, and the last time is long enough ago.
    pub(super) fn goes(&mut self, news: bool, now: Instant) -> bool {
        self.held |= news;
        let goes = self.held && self.left(now).is_zero();
        if goes {
            (self.last, self.held) = (Some(now), false);
        }
        goes
    }

    /// News are held back.
    pub(super) const fn held(&self) -> bool {
        self.held
    }

    /// Until what is held may go.
    pub(super) async fn waits(&self, now: Instant) {
        tokio::time::sleep(self.left(now)).await;
    }

    fn left(&self, now: Instant) -> Duration {
        self.last.map_or(Duration::ZERO, |last| (last + self.apart).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_goes_at_once_and_a_crowd_goes_once_each_time() {
        let start = actors::clock::tick();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(Duration::from_secs(1));
        assert!(!pace.goes(false, at(0)), "there is nothing");
        let crowd: Vec<u64> = (0..3_000).step_by(7).filter(|ms| pace.goes(true, at(*ms))).collect();
        assert_eq!(crowd, [0, 1_001, 2_002]);
        assert!(pace.held());
        assert!(pace.goes(false, at(3_002)), "the last of a crowd is not forgotten");
        assert!(!pace.held() && !pace.goes(false, at(9_000)));
        assert!(pace.goes(true, at(9_001)));
        pace.at_least(Duration::from_secs(3));
        assert!(!pace.goes(true, at(12_000)) && pace.goes(false, at(12_001)));
        pace.at_least(Duration::ZERO);
        assert!(!pace.goes(true, at(13_000)) && pace.goes(false, at(13_001)));
    }
}
