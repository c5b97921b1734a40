//! `kill -9` amid a run: of what, when, and what came of it.

use std::{fmt, str::FromStr};

use serde_json::{Value, json};

use super::goodput::Curve;

/// Seconds into a run at most.
const LATEST: u32 = 86_400;

/// When in a run something is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// So many machines are Ready.
    Ready(u32),
    /// That share of them is, in percent.
    Percent(u32),
    /// So many seconds after the first commissioning was asked for.
    Seconds(u32),
}

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victim {
    Region,
    /// All racks: they are one process.
    Racks,
}

/// A kill to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    pub victim: Victim,
    pub at: At,
}

impl FromStr for At {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str, least: u32, most: u32| digits.parse().ok().filter(|n| (least..=most).contains(n));
        let found = if let Some(digits) = text.strip_suffix('%') {
            number(digits, 1, 99).map(Self::Percent)
        } else if let Some(digits) = text.strip_suffix('s') {
            number(digits, 1, LATEST).map(Self::Seconds)
        } else {
            number(text, 1, u32::MAX).map(Self::Ready)
        };
        found.ok_or_else(|| {
            format!(
                "it is a count of Ready machines (1 or more), a share of them (1% to 99%), or a time of the run (1s to {LATEST}s); \
                 give one, as in 1000, 50% or 30s"
            )
        })
    }
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready(n) => write!(f, "{n}"),
            Self::Percent(share) => write!(f, "{share}%"),
            Self::Seconds(s) => write!(f, "{s}s"),
        }
    }
}

impl At {
    /// Whether it is time.
    #[must_use]
    pub fn due(self, ready: u64, machines: u64, seconds: f64) -> bool {
        match self {
            Self::Ready(n) => ready >= u64::from(n),
            Self::Percent(share) => ready * 100 >= machines * u64::from(share),
            Self::Seconds(s) => seconds >= f64::from(s),
        }
    }
}

impl Victim {
    /// Its name among the options.
    #[must_use]
    pub fn option(self) -> &'static str {
        match self {
            Self::Region => "--kill-region",
            Self::Racks => "--kill-racks",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Region => "region",
            Self::Racks => "racks",
        }
    }
}

/// A kill that was done; times in seconds, of the run or since the kill.
#[derive(Debug, Clone)]
pub(super) struct Killed {
    pub(super) kill: Kill,
    /// Seconds of the run.
    pub(super) at: f64,
    pub(super) ready: u64,
    pub(super) under_way: u64,
    /// The region answered its API again.
    pub(super) answers: Option<f64>,
    /// Every rack was linked again.
    pub(super) linked: Option<f64>,
}

impl Killed {
    /// As the report shows it.
    pub(super) fn json(&self, curve: &Curve) -> Value {
        let up = self.at + self.answers.unwrap_or(0.0);
        let before = curve.before(self.at);
        let back = curve.back(up, before).map(|second| second - self.at);
        json!({
            "what": self.kill.victim.name(), "asked": self.kill.at.to_string(), "at_s": self.at, "ready": self.ready,
            "under_way": self.under_way, "api_s": self.answers, "linked_s": self.linked,
            "goodput_before_per_minute": before, "goodput_back_s": back,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_count_a_share_or_seconds() {
        for (text, at) in [("1000", At::Ready(1_000)), ("50%", At::Percent(50)), ("30s", At::Seconds(30))] {
            assert_eq!(text.parse(), Ok(at));
            assert_eq!(at.to_string(), text);
        }
        for wrong in ["", "0", "-1", "soon", "0%", "100%", "1.5", "0s", "86401s", "5m", "%", "s"] {
            let why = wrong.parse::<At>().unwrap_err();
            assert!(why.contains("as in 1000, 50% or 30s") && why.contains("86400s"), "{wrong}: {why}");
        }
    }

    #[test]
    fn it_is_due_when_it_says() {
        assert!(!At::Ready(10).due(9, 20, 99.0) && At::Ready(10).due(10, 20, 0.0));
        assert!(!At::Percent(50).due(9, 20, 99.0) && At::Percent(50).due(10, 20, 0.0));
        assert!(!At::Seconds(5).due(20, 20, 4.9) && At::Seconds(5).due(0, 20, 5.0));
    }
}
