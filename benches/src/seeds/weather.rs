//! The weather of the deterministic yard: how long things take, what is lost or comes twice, and who is cut off from whom.

use std::{collections::BTreeSet, time::Duration};

use crate::hardware::Draw;

/// How the network and the disks behave. Shares are in thousandths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weather {
    /// One way of a packet, in microseconds: least and most.
    pub delay_us: (u64, u64),
    /// Datagrams lost. Of a stream's parts as many come late.
    pub loss: u64,
    /// Datagrams that come twice.
    pub twice: u64,
    /// Packets that come late, so that later ones overtake them.
    pub late: u64,
    /// A write to the disk, in microseconds: least and most.
    pub disk_us: (u64, u64),
    /// Writes that take a hundred times as long.
    pub slow_disk: u64,
}

impl Weather {
    /// Nothing is lost, everything is quick.
    #[must_use]
    pub fn fair() -> Self {
        Self { delay_us: (150, 400), loss: 0, twice: 0, late: 0, disk_us: (500, 3_000), slow_disk: 0 }
    }

    /// What a seed draws: from fair to rough.
    #[must_use]
    pub fn drawn(draw: &mut Draw) -> Self {
        let most = 400 + draw.below(8_000);
        Self {
            delay_us: (150, most),
            loss: draw.below(16),
            twice: draw.below(21),
            late: draw.below(31),
            disk_us: (500, 2_000 + draw.below(20_000)),
            slow_disk: draw.below(11),
        }
    }

    fn once(&self, draw: &mut Draw) -> Duration {
        let (least, most) = self.delay_us;
        let late = if draw.below(1_000) < self.late { 5 * most + draw.below(20_000) } else { 0 };
        Duration::from_micros(least + draw.below(most.saturating_sub(least) + 1) + late)
    }

    /// After how long a datagram arrives: never, once or twice.
    pub(super) fn datagram(&self, draw: &mut Draw) -> Vec<Duration> {
        if draw.below(1_000) < self.loss {
            return Vec::new();
        }
        let first = self.once(draw);
        if draw.below(1_000) < self.twice {
            return vec![first, self.once(draw)];
        }
        vec![first]
    }

    /// After how long a part of a stream arrives: what is lost is sent again.
    pub(super) fn stream(&self, draw: &mut Draw) -> Duration {
        let mut takes = self.once(draw);
        while draw.below(1_000) < self.loss {
            takes += Duration::from_millis(200) + self.once(draw);
        }
        takes
    }

    /// How long a write takes until it stands.
    pub(super) fn disk(&self, draw: &mut Draw) -> Duration {
        let (least, most) = self.disk_us;
        let takes = least + draw.below(most.saturating_sub(least) + 1);
        Duration::from_micros(if draw.below(1_000) < self.slow_disk { takes * 100 } else { takes })
    }

    /// How long until who asked for the write knows that it stands.
    pub(super) fn knows(&self, draw: &mut Draw) -> Duration {
        Duration::from_micros(20 + draw.below(200))
    }
}

/// A way that can be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// Between the region and that rack.
    Region(usize),
    /// Between that rack and its machines.
    Machines(usize),
    /// Between that rack and all BMCs.
    Bmcs(usize),
}

/// The ways that are cut now.
#[derive(Debug, Clone, Default)]
pub(super) struct Cuts(BTreeSet<Way>);

impl Cuts {
    pub(super) fn set(&mut self, way: Way, cut: bool) {
        if cut {
            self.0.insert(way);
        } else {
            self.0.remove(&way);
        }
    }

    pub(super) fn has(&self, way: Way) -> bool {
        self.0.contains(&way)
    }
}
