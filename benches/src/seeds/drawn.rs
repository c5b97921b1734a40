//! A seed's story: the weather, who is ill, what befalls nodes and ways. And its oracle: what a machine may say at its end, from what was
//! done to it alone.

use std::time::Duration;

use region::builtin::INVENTORY;
use schema::{power::PowerType, status::NodeStatus};

use super::{Chaos, Ended, Ill, Outcome, Scenario, Way, Weather};
use crate::hardware::Draw;

/// Of a thousand machines so many are ill.
pub const ILL: u64 = 120;
/// Most kills of the region, kills of racks, cuts of ways, absences of the store; each seed draws its own number.
pub const BEFALLS: [(&str, u64); 4] = [("region kills", 2), ("rack kills", 3), ("cuts", 3), ("store absences", 1)];
/// Of a hundred seeds so many have two racks on each network; there one more rack is killed, and one more is cut off.
pub const PAIRS: u64 = 50;
/// When those happen, in seconds after the beginning.
const WITHIN: u64 = 240;

/// A script that every machine runs.
const SCRIPT: &str = "maas-support-info";

/// Every ill that a seed may draw, and what the machine's end must say: one of the words; none for an ill that it gets over.
const ILLS: [(Ill, &[&str]); 22] = [
    (Ill::WrongPassword, &["the password of the user", "user or password are wrong"]),
    (Ill::SilentBmc, &["did not answer"]),
    (Ill::BusyBmc, &["busy"]),
    (Ill::LossyBmc(5), &[]),
    (Ill::SlowBmc(400), &[]),
    (Ill::FullBmc, &["insufficient resources"]),
    (Ill::RefusesHttp, &["Connection refused"]),
    (Ill::BreaksHttp(3), &[]),
    (Ill::Powerless, &["never came to the state", "no success before the deadline"]),
    (Ill::DeafCard, &["a DHCP request from"]),
    (Ill::OtherCard, &["a DHCP request from"]),
    (Ill::Loses("boot-kernel"), &["the kernel to be asked for"]),
    (Ill::Loses("/squashfs"), &["the ephemeral system to be fetched"]),
    (Ill::Loses("user-data"), &["cloud-init to fetch its user-data"]),
    (Ill::Clock(-31_536_000), &["clock is 3153"]),
    (Ill::WrongKey, &["key that is not its own", "Invalid signature"]),
    (Ill::ScriptFails(SCRIPT), &["failed scripts: maas-support-info"]),
    (Ill::ScriptTimesOut(SCRIPT), &["failed scripts: maas-support-info"]),
    (Ill::FreezesIn("maas-list-modaliases"), &["maas-list-modaliases"]),
    (Ill::RebootsIn("maas-list-modaliases"), &["maas-list-modaliases"]),
    (Ill::Floods(SCRIPT), &[]),
    (Ill::Garbles(INVENTORY), &["failed scripts: 50-maas-01-commissioning"]),
];

impl Scenario {
    /// The story of that seed.
    #[must_use]
    pub fn drawn(seed: u64, machines: u32) -> Self {
        let mut draw = Draw::of(seed, 0x0066_6175_6c74);
        let fair = Self::fair(seed, machines);
        let weather = Weather::drawn(&mut draw);
        let ills = (0..machines).filter_map(|n| {
            let ill = draw.below(1_000) < ILL;
            ill.then(|| (n, draw.pick(&ILLS).0.clone()))
        });
        let ills = ills.collect();
        let mut chaos = Vec::new();
        let [regions, racks, cuts, stores] = BEFALLS.map(|(_, most)| draw.below(most + 1));
        for _ in 0..regions {
            befall(&mut draw, &mut chaos, 30, Chaos::KillRegion, Chaos::StartRegion);
        }
        for _ in 0..racks {
            let rack = pick(&mut draw, fair.racks);
            befall(&mut draw, &mut chaos, 20, Chaos::KillRack(rack), Chaos::StartRack(rack));
        }
        for _ in 0..cuts {
            let rack = pick(&mut draw, fair.racks);
            let (way, most) = match draw.below(3) {
                0 => (Way::Region(rack), 90),
                1 => (Way::Machines(rack), 30),
                _ => (Way::Bmcs(rack), 30),
            };
            befall(&mut draw, &mut chaos, most, Chaos::Cut(way), Chaos::Mend(way));
        }
        for _ in 0..stores {
            let at = Duration::from_secs(2 + draw.below(WITHIN));
            chaos.push((at, Chaos::StoreAway(Duration::from_secs(1 + draw.below(20)))));
        }
        let mut story = Self { weather, ills, chaos, ..fair };
        // Drawn apart: the stories of single racks are what they would be without pairs.
        let mut draw = Draw::of(seed, 0x0070_6169_7273);
        if draw.below(100) < PAIRS {
            story.house.pairs = true;
            story.racks = story.racks.next_multiple_of(2);
            let (killed, cut) = (pick(&mut draw, story.racks), pick(&mut draw, story.racks));
            befall(&mut draw, &mut story.chaos, 60, Chaos::KillRack(killed), Chaos::StartRack(killed));
            let way = if draw.below(2) == 0 { Way::Region(cut) } else { Way::Machines(cut) };
            befall(&mut draw, &mut story.chaos, 90, Chaos::Cut(way), Chaos::Mend(way));
        }
        story
    }

    /// Whether a rack of that network, or the way to its machines or BMCs, ever failed.
    fn befell(&self, wire: usize) -> bool {
        let per = self.racks_per_wire();
        self.chaos.iter().any(|(_, chaos)| match chaos {
            Chaos::KillRack(n) | Chaos::Cut(Way::Machines(n)) | Chaos::Cut(Way::Region(n)) => *n / per == wire,
            // The order may have been given to any of them.
            Chaos::Cut(Way::Bmcs(_)) => true,
            _ => false,
        })
    }

    /// What of an outcome does not agree with what was done.
    #[must_use]
    pub fn disagrees(&self, outcome: &Outcome) -> Vec<String> {
        let laws = outcome.broken.iter().cloned();
        laws.chain(outcome.machines.iter().filter_map(|m| self.judge(m))).collect()
    }

    fn judge(&self, m: &Ended) -> Option<String> {
        let wrong = |why: &str| {
            let (name, status, error) = (&m.hostname, m.status.label(), &m.error);
            Some(format!("{name} ({:?}, hung: {:?}) is {status}: {error}: {why}", m.ills, m.hung))
        };
        let words: Vec<&[&str]> = m
            .ills
            .iter()
            .filter(|ill| concerns(ill, m.power))
            .filter_map(|ill| ILLS.iter().find(|(known, _)| known == ill))
            .map(|(_, w)| *w)
            .collect();
        let said = words.iter().any(|words| words.iter().any(|word| m.error.contains(word)));
        let doomed = words.iter().any(|words| !words.is_empty());
        match m.status {
            NodeStatus::Ready if doomed => wrong("it cannot be"),
            NodeStatus::Ready if !m.error.is_empty() => wrong("an error is left"),
            NodeStatus::Ready => None,
            NodeStatus::FailedCommissioning if !m.error.contains("Remedy: ") => wrong("there is no remedy"),
            NodeStatus::FailedCommissioning if said => None,
            NodeStatus::FailedCommissioning if self.befell(m.wire) => by_outage(m).and_then(wrong),
            NodeStatus::FailedCommissioning => wrong("nothing was done to it that would explain that"),
            _ => wrong("it has not ended"),
        }
    }
}

/// Whether a machine whose BMC speaks that notices the ill at all.
fn concerns(ill: &Ill, power: PowerType) -> bool {
    match ill {
        Ill::RefusesHttp | Ill::BreaksHttp(_) => power == PowerType::Redfish,
        // Of Redfish services only some give sessions, and the driver does without.
        Ill::FullBmc => power == PowerType::Ipmi,
        _ => true,
    }
}

/// Whether a failure agrees with what the machine itself went through while its rack, or the way to it, was away.
fn by_outage(m: &Ended) -> Option<&'static str> {
    let number = m.error.split_once("Step ").and_then(|(_, rest)| rest.split(' ').next()?.parse::<u8>().ok());
    // The last: the rack died over the order, and was back when its time was up.
    let power = ["did not answer", "its link was lost", "did not accept the order", "no success before the deadline"];
    let agrees = match (&m.hung, number) {
        (Some(hung), Some(step)) => within(hung).contains(&step),
        // It never came on, or never went off; or it went on, and nothing was heard of it since its rack had no link.
        (None, Some(step)) => matches!(step, 3 | 4 | 12) || m.error.contains("lost its link"),
        (_, None) => power.iter().any(|word| m.error.contains(word)),
    };
    (!agrees).then_some("what the machine went through does not explain that")
}

/// The steps that a machine can be at which waits for that in vain.
fn within(hung: &str) -> std::ops::RangeInclusive<u8> {
    const PLACES: [(&str, std::ops::RangeInclusive<u8>); 12] = [
        ("answers Initramfs", 9..=9),
        ("answers System", 10..=11),
        ("no DHCP server answers", 5..=8),
        ("given an address and nothing to boot", 5..=10),
        ("squashfs", 9..=9),
        ("boot-initrd", 9..=9),
        ("boot-kernel", 8..=9),
        ("get_preseed", 9..=10),
        ("meta-data", 10..=10),
        ("user-data", 10..=10),
        ("maas-scripts", 10..=11),
        ("signal", 10..=12),
    ];
    PLACES.iter().find(|(text, _)| hung.contains(text)).map_or(5..=8, |(_, steps)| steps.clone())
}

fn pick(draw: &mut Draw, racks: usize) -> usize {
    usize::try_from(draw.below(racks as u64)).unwrap_or(0)
}

/// Something begins at some time, and ends after at most so many seconds.
fn befall(draw: &mut Draw, chaos: &mut Vec<(Duration, Chaos)>, most: u64, begins: Chaos, ends: Chaos) {
    let at = Duration::from_millis(2_000 + draw.below(WITHIN * 1_000));
    let lasts = Duration::from_millis(500 + draw.below(most * 1_000));
    chaos.push((at, begins));
    chaos.push((at + lasts, ends));
}
