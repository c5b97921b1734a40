//! The 48 bytes of NTP (RFC 5905 section 7.3): read from a client, written to it, and read from a server. Sans-I/O.

use std::time::Duration;

use schema::time::Timestamp;

/// Length of a header without extension fields and MAC.
pub const LEN: usize = 48;
/// Seconds from 1900, NTP's epoch, to 1970.
const TO_UNIX: i64 = 2_208_988_800;

/// A 64-bit timestamp: seconds since 1900 modulo 2^32, and their fraction (section 6).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NtpTime(pub u64);

impl NtpTime {
    /// From seconds and nanoseconds since 1970.
    #[must_use]
    pub fn from_unix(seconds: i64, nanoseconds: u32) -> Self {
        // The era is not on the wire: the seconds wrap in 2036, and clients know it.
        let seconds = seconds.wrapping_add(TO_UNIX) as u32;
        let fraction = (u64::from(nanoseconds) << 32) / 1_000_000_000;
        Self((u64::from(seconds) << 32) | fraction)
    }

    /// The point in time near `pivot`, which settles the era.
    #[must_use]
    pub fn near(self, pivot: Timestamp) -> Timestamp {
        let seconds = (self.0 >> 32) as i64 - TO_UNIX;
        let era = 1_i64 << 32;
        let turns = (pivot.seconds() - seconds + era / 2).div_euclid(era);
        let micros = ((self.0 & 0xffff_ffff) * 1_000_000) >> 32;
        Timestamp((seconds + turns * era) * 1_000_000 + micros as i64)
    }
}

impl From<Timestamp> for NtpTime {
    fn from(time: Timestamp) -> Self {
        let micros = time.0.rem_euclid(1_000_000);
        Self::from_unix(time.seconds(), u32::try_from(micros * 1_000).unwrap_or(0))
    }
}

/// A span in NTP's short format, 16 bits of seconds and 16 of fraction; longer ones saturate.
#[must_use]
pub fn short(span: Duration) -> u32 {
    let units = (span.as_nanos() << 16) / 1_000_000_000;
    u32::try_from(units).unwrap_or(u32::MAX)
}

/// What a clock says of itself in every answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// 0 none, 1 the last minute of the day has 61 seconds, 2 it has 59, 3 not synchronised.
    pub leap: u8,
    /// 1 a reference clock, 2 to 15 that many steps away from one.
    pub stratum: u8,
    /// log2 of the clock's precision in seconds.
    pub precision: i8,
    /// Round trip to the reference clock, short format.
    pub root_delay: u32,
    /// Greatest error against the reference clock, short format.
    pub root_dispersion: u32,
    pub reference_id: [u8; 4],
    /// When the clock was last set.
    pub reference: NtpTime,
}

/// A client's request, as far as it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// 1 to 4.
    pub version: u8,
    pub poll: i8,
    /// The client's clock when it sent this; it comes back as the origin.
    pub transmit: NtpTime,
}

/// Why a packet gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    #[error("{0} bytes are no NTP packet, which has {LEN} at least")]
    Short(usize),
    #[error("version {0} is none of 1 to 4")]
    Version(u8),
    /// Peers (1, 2), servers (4), broadcasts (5), control (6) and private (7) messages: the last two are what amplifiers live on.
    #[error("mode {0} is not that of a client (3)")]
    Mode(u8),
}

impl Request {
    /// Reads a request. Extension fields and a MAC behind it are not looked at.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Unanswered> {
        let Some((header, _)) = bytes.split_first_chunk::<LEN>() else { return Err(Unanswered::Short(bytes.len())) };
        let (version, mode) = (header[0] >> 3 & 7, header[0] & 7);
        match (version, mode) {
            // Version 1 has no modes (RFC 1059): who asks a server is a client.
            (2..=4, 3) | (1, 0 | 3) => {}
            (1..=4, mode) => return Err(Unanswered::Mode(mode)),
            (version, _) => return Err(Unanswered::Version(version)),
        }
        Ok(Self { version, poll: header[2] as i8, transmit: time_at(header, 40) })
    }

    /// The bytes of a request, as clients and tests send it.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.version << 3 | 3;
        bytes[2] = self.poll as u8;
        put(&mut bytes, 40, self.transmit);
        bytes
    }
}

/// A server's answer, as clients and tests read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    pub version: u8,
    pub clock: Clock,
    pub poll: i8,
    pub origin: NtpTime,
    pub receive: NtpTime,
    pub transmit: NtpTime,
}

impl Response {
    /// Reads an answer; `None` for what is none.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, _) = bytes.split_first_chunk::<LEN>()?;
        let short = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let clock = Clock {
            leap: header[0] >> 6,
            stratum: header[1],
            precision: header[3] as i8,
            root_delay: short(4),
            root_dispersion: short(8),
            reference_id: short(12).to_be_bytes(),
            reference: time_at(header, 16),
        };
        (header[0] & 7 == 4).then(|| Self {
            version: header[0] >> 3 & 7,
            clock,
            poll: header[2] as i8,
            origin: time_at(header, 24),
            receive: time_at(header, 32),
            transmit: time_at(header, 40),
        })
    }

    /// The bytes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        bytes[0] = self.clock.leap << 6 | self.version << 3 | 4;
        bytes[1] = self.clock.stratum;
        bytes[2] = self.poll as u8;
        bytes[3] = self.clock.precision as u8;
        bytes[4..8].copy_from_slice(&self.clock.root_delay.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.clock.root_dispersion.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.clock.reference_id);
        put(&mut bytes, 16, self.clock.reference);
        put(&mut bytes, 24, self.origin);
        put(&mut bytes, 32, self.receive);
        put(&mut bytes, 40, self.transmit);
        bytes
    }
}

fn time_at(header: &[u8; LEN], at: usize) -> NtpTime {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    NtpTime(u64::from_be_bytes(bytes))
}

fn put(bytes: &mut [u8; LEN], at: usize, time: NtpTime) {
    if let Some(place) = bytes.get_mut(at..at + 8) {
        place.copy_from_slice(&time.0.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_hold_across_the_turn_of_the_era() {
        let before = Timestamp::from_seconds(2_085_978_495);
        assert_eq!(NtpTime::from(before).0 >> 32, u64::from(u32::MAX));
        let after = Timestamp(2_085_978_497_250_000);
        assert_eq!(NtpTime::from(after).0, (1 << 32) | (1 << 30));
        for time in [before, after, Timestamp::from_seconds(0)] {
            assert_eq!(NtpTime::from(time).near(time + Duration::from_secs(5_000)), time);
        }
        assert_eq!((short(Duration::from_millis(500)), short(Duration::MAX)), (1 << 15, u32::MAX));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_request_or_one_reason(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            match Request::parse(&bytes) {
                Ok(request) => prop_assert_eq!(Request::parse(&request.to_bytes()), Ok(request)),
                Err(why) => prop_assert!(!why.to_string().is_empty()),
            }
        }

        #[test]
        fn an_answer_survives_the_wire(bytes in prop::collection::vec(any::<u8>(), LEN)) {
            if let Some(response) = Response::parse(&bytes) {
                prop_assert_eq!(&response.to_bytes()[..], &bytes[..]);
            }
        }

        #[test]
        fn a_time_comes_back_to_the_microsecond(micros in 0_i64..4_000_000_000_000_000) {
            let back = NtpTime::from(Timestamp(micros)).near(Timestamp(micros));
            prop_assert!((back.0 - micros).abs() <= 1, "{} {}", back.0, micros);
        }
    }
}
