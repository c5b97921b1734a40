//! What our own server says of the host's clock, from what the kernel says of it. Pure.

use std::time::Duration;

use schema::time::Timestamp;

use super::packet::{Clock, NtpTime, short};
use crate::kernel::ClockCare;

/// A clock that somebody keeps: the kernel does not say how far he is from a reference clock, so no stratum that would win
/// against a server that knows.
const KEPT: u8 = 5;
/// A clock that nobody keeps. Machines still get one time, the rack's, which logins and deadlines are measured by (chrony's `local`).
const ALONE: u8 = 10;
/// What a clock without a keeper says of its error, as chrony's `local` does: it is its own reference.
const ALONE_ERROR: Duration = Duration::from_millis(10);
/// What a kept clock says at most: clients refuse a server that doubts itself more (chrony: 3 s).
const DOUBT: Duration = Duration::from_secs(1);
/// Microseconds.
const PRECISION: i8 = -20;
/// "The local clock", in the form of the source's address that stratum 2 and above write.
const LOCAL: [u8; 4] = [127, 127, 1, 1];

/// The clock as every answer shows it.
#[must_use]
pub fn of_kernel(care: Option<ClockCare>, now: Timestamp) -> Clock {
    let kept = care.filter(|c| c.synchronised);
    let error = kept.map_or(ALONE_ERROR, |c| c.max_error.min(DOUBT));
    Clock {
        leap: kept.map_or(0, |c| c.leap),
        stratum: if kept.is_some() { KEPT } else { ALONE },
        precision: PRECISION,
        root_delay: 0,
        root_dispersion: short(error),
        reference_id: LOCAL,
        // The kernel forgets when it was set; a client only wants it to be recent.
        reference: NtpTime::from_unix(now.seconds() & !0xf, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_without_a_keeper_is_the_last_choice_but_a_choice() {
        let now = Timestamp::from_seconds(1_800_000_007);
        let care = ClockCare { synchronised: true, max_error: Duration::from_secs(16), leap: 1 };
        let kept = of_kernel(Some(care), now);
        assert_eq!((kept.leap, kept.stratum, kept.root_dispersion), (1, 5, 1 << 16));
        let alone = of_kernel(Some(ClockCare { synchronised: false, ..care }), now);
        assert_eq!((alone.leap, alone.stratum), (0, 10));
        assert_eq!(alone.reference.near(now).seconds(), 1_800_000_000);
    }
}
