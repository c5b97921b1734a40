//! How often each client may come: what keeps one that floods from costing the others anything. Pure.

use std::{collections::HashMap, net::Ipv4Addr};

use schema::time::Timestamp;

/// Clients remembered; only addresses of the plan's subnets come this far.
const CLIENTS: usize = 65_536;
/// A client that is too fast is told so this often, in microseconds.
const TELL_AGAIN: i64 = 1_000_000;

/// How a client's packets follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    Fine,
    TooFast { tell: bool },
}

/// The rate of each client: a leaky bucket in one number, the time at which the client has spent nothing (GCRA, ITU-T I.371).
#[derive(Debug)]
pub struct Rates {
    /// Microseconds that one costs.
    cost: i64,
    /// Microseconds that a client may owe.
    credit: i64,
    clients: HashMap<Ipv4Addr, Client>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    even_at: i64,
    told_at: i64,
}

impl Rates {
    /// `per_second` of each client, and `burst` of them at once. 0: as many as come.
    #[must_use]
    pub fn new(per_second: u32, burst: u32) -> Self {
        let cost = if per_second == 0 { 0 } else { 1_000_000 / i64::from(per_second) };
        Self { cost, credit: cost * i64::from(burst.max(1)), clients: HashMap::new() }
    }

    /// Counts one.
    pub fn ask(&mut self, from: Ipv4Addr, now: Timestamp) -> Pace {
        if self.cost == 0 {
            return Pace::Fine;
        }
        if self.clients.len() >= CLIENTS && !self.clients.contains_key(&from) {
            self.clients.retain(|_, client| client.even_at > now.0);
            if self.clients.len() >= CLIENTS {
                self.clients.clear();
            }
        }
        let client = self.clients.entry(from).or_default();
        let most = now.0.saturating_add(self.credit);
        // Nobody can owe more than the credit, but by a clock that stepped back: that is forgiven.
        let even_at = if client.even_at > most { now.0 } else { client.even_at.max(now.0) };
        if even_at + self.cost > most {
            let tell = (now.0 - client.told_at).abs() >= TELL_AGAIN;
            if tell {
                client.told_at = now.0;
            }
            return Pace::TooFast { tell };
        }
        client.even_at = even_at + self.cost;
        Pace::Fine
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nobody_gets_more_than_burst_and_rate(gaps in prop::collection::vec(0_i64..400, 1..300)) {
            let (mut rates, mut ms, mut fine) = (Rates::new(5, 10), 0, 0_i64);
            for gap in &gaps {
                ms += gap;
                fine += i64::from(rates.ask(Ipv4Addr::LOCALHOST, Timestamp(1_800_000_000_000_000 + ms * 1_000)) == Pace::Fine);
            }
            prop_assert!(fine <= 10 + ms / 200 + 1, "{fine} in {ms} ms");
        }
    }
}
