//! What a client is answered (RFC 5905 sections 7.4 and 8), and how often. Sans-I/O; an answer is never longer than its question.

use std::net::Ipv4Addr;

use schema::time::Timestamp;

use super::packet::{Clock, LEN, NtpTime, Request, Response, Unanswered};
use crate::rates::{Pace, Rates};

/// The poll exponent that a kiss-o'-death asks for: 64 s.
const KISS_POLL: i8 = 6;

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Time([u8; LEN]),
    /// Kiss-o'-death RATE: ask less often (section 7.4).
    Kiss([u8; LEN]),
    /// Too fast, and told so a moment ago.
    Silence,
    /// No client's question.
    Ignored(Unanswered),
}

/// The answer to a packet that came from `from` at `received`; `now` is what the clock says when it leaves.
pub fn answer(
    packet: &[u8],
    from: Ipv4Addr,
    clock: &Clock,
    rates: &mut Rates,
    received: NtpTime,
    now: Timestamp,
) -> Answer {
    let request = match Request::parse(packet) {
        Ok(request) => request,
        Err(why) => return Answer::Ignored(why),
    };
    let response = |clock: Clock, poll| {
        let (version, origin) = (request.version, request.transmit);
        Response { version, clock, poll, origin, receive: received, transmit: now.into() }.to_bytes()
    };
    match rates.ask(from, now) {
        Pace::Fine => Answer::Time(response(*clock, request.poll)),
        Pace::TooFast { tell: false } => Answer::Silence,
        Pace::TooFast { tell: true } => {
            let kiss = Clock { leap: 3, stratum: 0, reference_id: *b"RATE", ..*clock };
            Answer::Kiss(response(kiss, request.poll.max(KISS_POLL)))
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CLOCK: Clock = Clock {
        leap: 0,
        stratum: 3,
        precision: -20,
        root_delay: 655,
        root_dispersion: 1_310,
        reference_id: [10, 0, 0, 1],
        reference: NtpTime(1 << 60),
    };
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 50);

    fn now(ms: i64) -> Timestamp {
        Timestamp(1_800_000_000_000_000 + ms * 1_000)
    }

    fn ask(packet: &[u8], rates: &mut Rates, ms: i64) -> Answer {
        answer(packet, CLIENT, &CLOCK, rates, now(ms).into(), now(ms + 1))
    }

    #[test]
    fn versions_1_to_4_are_echoed_with_the_origin_and_all_four_times() {
        for version in 1..=4 {
            let request = Request { version, poll: 10, transmit: NtpTime(77) };
            let Answer::Time(bytes) = ask(&request.to_bytes(), &mut Rates::new(8, 8), 0) else { panic!("{version}") };
            let told = Response::parse(&bytes).unwrap();
            assert_eq!((told.version, told.origin, told.clock, told.poll), (version, NtpTime(77), CLOCK, 10));
            assert_eq!((told.receive, told.transmit), (now(0).into(), now(1).into()));
        }
    }

    #[test]
    fn only_clients_are_answered() {
        let request = Request { version: 4, poll: 6, transmit: NtpTime(1) };
        for mode in [0, 1, 2, 4, 5, 6, 7] {
            let mut bytes = request.to_bytes();
            bytes[0] = 4 << 3 | mode;
            assert_eq!(ask(&bytes, &mut Rates::new(8, 8), 0), Answer::Ignored(Unanswered::Mode(mode)));
        }
        assert_eq!(ask(&[0x1b; 47], &mut Rates::new(8, 8), 0), Answer::Ignored(Unanswered::Short(47)));
        assert_eq!(ask(&[0x2b; 48], &mut Rates::new(8, 8), 0), Answer::Ignored(Unanswered::Version(5)));
        let mut first = [0; 48];
        first[0] = 1 << 3;
        assert!(matches!(ask(&first, &mut Rates::new(8, 8), 0), Answer::Time(_)), "version 1 knows no modes");
    }

    #[test]
    fn a_flood_gets_one_kiss_a_second_while_others_are_answered() {
        let (request, mut rates) = (Request { version: 4, poll: 3, transmit: NtpTime(9) }, Rates::new(2, 4));
        let told: Vec<_> = (0..100).map(|ms| ask(&request.to_bytes(), &mut rates, ms)).collect();
        assert_eq!(told.iter().filter(|a| matches!(a, Answer::Time(_))).count(), 4);
        let kisses: Vec<_> = told.iter().filter_map(|a| if let Answer::Kiss(k) = a { Some(k) } else { None }).collect();
        let kiss = Response::parse(kisses[0]).unwrap();
        assert_eq!((kisses.len(), kiss.clock.stratum, &kiss.clock.reference_id), (1, 0, b"RATE"));
        assert_eq!((kiss.origin, kiss.poll, kiss.clock.leap), (NtpTime(9), 6, 3));
        assert_eq!(rates.ask(Ipv4Addr::new(10, 77, 0, 51), now(100)), Pace::Fine);
        assert_eq!(rates.ask(CLIENT, now(700)), Pace::Fine, "half a second buys one");
        assert_eq!(rates.ask(CLIENT, now(-900_000)), Pace::Fine, "a step back of the clock is forgiven");
    }

    proptest! {
        #[test]
        fn no_answer_is_longer_than_its_question(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            match ask(&bytes, &mut Rates::new(0, 0), 0) {
                Answer::Time(told) | Answer::Kiss(told) => prop_assert!(told.len() <= bytes.len()),
                Answer::Silence | Answer::Ignored(_) => {}
            }
        }
    }
}
