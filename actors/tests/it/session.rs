//! Reports under cuts, lost acknowledgements, repeats and restarts of both sides: once in effect, in order, none left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use actors::session::{Receiving, Sending, Taken};
use proptest::prelude::*;
use schema::id::ReportSeq;

/// What the world does next.
#[derive(Debug, Clone)]
enum Op {
    /// The rack sees something of that machine.
    See(u8),
    /// The full outbox drops its oldest waiting report.
    Overflow,
    Connect,
    /// The connection ends; of what is under way, so much still arrives.
    Cut {
        reports: usize,
        acks: usize,
    },
    RackSends(usize),
    /// A frame arrives twice (no QUIC does that; a fault might).
    Doubled,
    Arrive(usize),
    AcksArrive(usize),
    /// That machine's actor makes its oldest report durable.
    Record(u8),
    /// It fails to.
    Fail(u8),
    RackRestarts,
    RegionRestarts,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..3u8).prop_map(Op::See),
        1 => Just(Op::Overflow),
        4 => Just(Op::Connect),
        2 => (0..5usize, 0..3usize).prop_map(|(reports, acks)| Op::Cut { reports, acks }),
        6 => (1..6usize).prop_map(Op::RackSends),
        1 => Just(Op::Doubled),
        6 => (1..6usize).prop_map(Op::Arrive),
        4 => (1..4usize).prop_map(Op::AcksArrive),
        8 => (0..3u8).prop_map(Op::Record),
        1 => (0..3u8).prop_map(Op::Fail),
        1 => Just(Op::RackRestarts),
        1 => Just(Op::RegionRestarts),
    ]
}

type Numbered = (ReportSeq, u8);

/// A rack with its disk, a region with its store, and the wire between them.
struct World {
    outbox: BTreeMap<ReportSeq, u8>,
    last: u64,
    rack: Sending,
    up: bool,
    to_region: VecDeque<Numbered>,
    to_rack: VecDeque<ReportSeq>,
    region: Receiving,
    mailboxes: BTreeMap<u8, VecDeque<ReportSeq>>,
    /// The store: effects in their order, and the line.
    effects: Vec<Numbered>,
    line: ReportSeq,
    /// What the outbox dropped while it waited; it may or may not have had its effect.
    dropped: BTreeSet<ReportSeq>,
    all: Vec<Numbered>,
}

impl World {
    fn new(window: usize) -> Self {
        Self {
            outbox: BTreeMap::new(),
            last: 0,
            rack: Sending::new(window),
            up: false,
            to_region: VecDeque::new(),
            to_rack: VecDeque::new(),
            region: Receiving::new(ReportSeq(0)),
            mailboxes: BTreeMap::new(),
            effects: Vec::new(),
            line: ReportSeq(0),
            dropped: BTreeSet::new(),
            all: Vec::new(),
        }
    }

    fn forget(&mut self, through: ReportSeq) {
        self.outbox.retain(|seq, _| *seq > through);
    }

    fn connect(&mut self) {
        if !self.up {
            self.up = true;
            self.region.connected();
            let last = self.region.last_report();
            self.rack.up(last);
            self.forget(last);
        }
    }

    fn cut(&mut self, reports: usize, acks: usize) {
        self.arrive(reports);
        self.acks(acks);
        self.up = false;
        self.rack.down();
        self.to_region.clear();
        self.to_rack.clear();
    }

    fn send(&mut self, n: usize) {
        let Some(want) = self.rack.wants() else { return };
        let next: Vec<_> = self.outbox.range(ReportSeq(want.after.0 + 1)..).take(n.min(want.room)).collect();
        for (seq, machine) in next {
            self.rack.sent(*seq);
            self.to_region.push_back((*seq, *machine));
        }
    }

    fn arrive(&mut self, n: usize) {
        for _ in 0..n {
            let Some((seq, machine)) = self.to_region.pop_front() else { return };
            match self.region.take(seq) {
                Taken::New => self.mailboxes.entry(machine).or_default().push_back(seq),
                Taken::Repeat { through } => {
                    self.line = self.line.max(through);
                    self.to_rack.push_back(through);
                }
                Taken::UnderWay => {}
                Taken::OutOfOrder { after } => panic!("{seq} after {after}"),
            }
        }
    }

    fn acks(&mut self, n: usize) {
        for _ in 0..n {
            let Some(through) = self.to_rack.pop_front() else { return };
            assert!(through <= self.line, "{through} was acknowledged before it was durable");
            if let Some(forget) = self.rack.acked(through) {
                self.forget(forget);
            }
        }
    }

    fn record(&mut self, machine: u8) {
        let Some(seq) = self.mailboxes.get_mut(&machine).and_then(VecDeque::pop_front) else { return };
        self.effects.push((seq, machine));
        if let Some(through) = self.region.durable(seq) {
            self.line = through;
            self.to_rack.push_back(through);
        }
    }

    /// The store refuses: what the machine had before it is gone from its mailbox, and the rack is disconnected.
    fn fail(&mut self, machine: u8) {
        for seq in self.mailboxes.remove(&machine).unwrap_or_default() {
            self.region.failed(seq);
        }
        self.cut(0, 0);
    }

    fn step(&mut self, op: Op) {
        match op {
            Op::See(machine) => {
                self.last += 1;
                self.outbox.insert(ReportSeq(self.last), machine);
                self.all.push((ReportSeq(self.last), machine));
            }
            Op::Overflow => {
                if let Some((seq, _)) = self.outbox.pop_first() {
                    self.dropped.insert(seq);
                }
            }
            Op::Connect => self.connect(),
            Op::Cut { reports, acks } => self.cut(reports, acks),
            Op::RackSends(n) => self.send(n),
            Op::Doubled => {
                if let Some(first) = self.to_region.front().copied() {
                    self.to_region.push_front(first);
                }
            }
            Op::Arrive(n) => self.arrive(n),
            Op::AcksArrive(n) => self.acks(n),
            Op::Record(machine) => self.record(machine),
            Op::Fail(machine) => self.fail(machine),
            Op::RackRestarts => {
                self.cut(0, 0);
                self.rack = Sending::new(3);
            }
            Op::RegionRestarts => {
                self.cut(0, 0);
                self.mailboxes.clear();
                self.region = Receiving::restore(self.line, self.effects.iter().map(|(seq, _)| *seq));
            }
        }
    }

    /// Peace at last: everything that can move moves.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.connect();
            self.send(usize::MAX);
            self.arrive(usize::MAX);
            (0..3).for_each(|m| {
                while self.mailboxes.get(&m).is_some_and(|b| !b.is_empty()) {
                    self.record(m)
                }
            });
            self.acks(usize::MAX);
            if self.outbox.is_empty() {
                return;
            }
        }
        panic!("{} reports never arrive", self.outbox.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reports_take_effect_once_in_order_and_none_is_left_out(
        window in 1..6usize,
        ops in prop::collection::vec(op(), 0..120),
    ) {
        let mut world = World::new(window);
        for op in ops {
            world.step(op);
            prop_assert!(world.rack.under_way() <= window.max(3));
        }
        world.cut(0, 0);
        world.settle();
        let mut seen = BTreeSet::new();
        for machine in 0..3 {
            let effects: Vec<_> = world.effects.iter().filter(|(_, m)| *m == machine).map(|(seq, _)| *seq).collect();
            prop_assert!(effects.is_sorted(), "machine {} heard {:?}", machine, effects);
            seen.extend(effects.iter().copied());
        }
        prop_assert_eq!(seen.len(), world.effects.len(), "an effect came twice: {:?}", world.effects);
        for (seq, _) in &world.all {
            prop_assert!(seen.contains(seq) || world.dropped.contains(seq), "{} was lost", seq);
        }
        prop_assert!(world.rack.under_way() == 0);
    }
}

#[test]
fn a_region_with_a_fault_cannot_make_a_rack_forget() {
    let mut rack = Sending::new(8);
    rack.up(ReportSeq(0));
    (1..=3).for_each(|n| rack.sent(ReportSeq(n)));
    assert_eq!(rack.acked(ReportSeq(u64::MAX)), Some(ReportSeq(3)));
    assert_eq!(rack.acked(ReportSeq(2)), None);
}

#[test]
fn a_rack_with_a_fault_is_told_that_its_reports_are_out_of_order() {
    let mut region = Receiving::new(ReportSeq(0));
    assert_eq!(region.take(ReportSeq(5)), Taken::New);
    assert_eq!(region.take(ReportSeq(4)), Taken::OutOfOrder { after: ReportSeq(5) });
}
