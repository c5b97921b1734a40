//! What region and rack say to each other over the link. Bodies of bulk streams are not here: they are raw bytes after a [`BulkHeader`].

use std::{fmt, net::Ipv4Addr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{BodyRef, BootFile},
    dns::{DnsName, RecordKey, RecordSet, Zone},
    id::{AttemptId, Generation, RackId, ReportSeq, SubnetId, SystemId},
    logs::LogBatch,
    messages::report::Report,
    net::{Cidr, MacAddr},
    plan::{Lease, Listening, Plan, PlanSettings, PlanSubnet, Reservation, Ticket},
    power::{PowerAccess, PowerAction},
    service::ServiceStatus,
    time::Timestamp,
};

/// Region to rack, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToRack {
    /// First on every connection: the region has checked the certificate and knows the rack.
    Welcome { rack: RackId, region: SystemId, last_report: ReportSeq, now: Timestamp },
    /// The region will not talk to this rack; the connection closes after it.
    Refused { why: String, remedy: String },
    /// A part of the plan.
    Plan(Box<PlanUpdate>),
    /// Do this once.
    Order(Order),
    /// Forget that order; what is under way ends.
    CancelOrder { machine: SystemId, attempt: AttemptId },
    /// Every report up to and with `through` is durable in the region.
    Ack { through: ReportSeq },
    /// Send your state anew (after the region lost what it knew).
    SendHello,
    /// Every batch of that run up to and with `number` is kept in the region.
    LogsKept { run: u64, number: u64 },
    /// Which machines' power to watch.
    Sweep(Box<SweepUpdate>),
    /// Leases of subnets whose DHCP this rack shares, as the region has them: new ones of the other rack as they come, all of a subnet's when
    /// the link came up and when the rack became a member.
    Leases(Vec<Lease>),
    /// Every lease that rack granted, renewed or ended before `through`, by its own clock, is among the leases said before.
    LeasesThrough { rack: RackId, through: Timestamp },
    /// What do your actors show of themselves? Answered with [`FromRack::Inspected`] of the same number.
    Inspect { number: u64, ask: InspectAsk },
}

/// Rack to region, on the control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum FromRack {
    /// First after [`ToRack::Welcome`]: what the rack is and what it holds.
    Hello(Hello),
    /// The plan of that generation is durable and in force.
    PlanInForce { generation: Generation },
    /// Facts about machines, sent again until acknowledged.
    Report(Report),
    /// A lease was granted, renewed, released (`expires` = now) or declined.
    Leases(Vec<Lease>),
    /// The rack stops on purpose.
    Goodbye,
    /// How the rack's services stand: all of them, when one changed and every few seconds.
    Services(Vec<ServiceStatus>),
    /// Lines of the machines' logs, sent again until they are kept.
    Logs(LogBatch),
    /// How the rack's clock stands: on every connection, every minute, and when that changes.
    Clock(ClockReport),
    /// Every lease granted, renewed or ended here before `through` is among the leases said before on this link.
    LeasesThrough { through: Timestamp },
    /// Other DHCP servers on the links of this rack's subnets: all that are known now. Said when that changes and on every new link.
    ForeignDhcp(Vec<ForeignDhcp>),
    /// The answer to [`ToRack::Inspect`]: JSON text for people, and how much was left out of it for its size.
    Inspected { number: u64, json: String, left_off: u32 },
    /// Clients that asked this rack for an address to boot and that it has no order to boot: the newest, each as it was heard last. Said when
    /// that changes and on every new link.
    Strays(Vec<Stray>),
}

/// What is asked of a rack's actors. The answers are read from what each actor publishes, never through a mailbox.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum InspectAsk {
    /// All of them, a row each.
    Actors,
    /// One, whole.
    Actor { kind: String, id: String },
    /// What each kind has handled.
    Kinds,
    /// The steps of one trace.
    Trace { trace: u128 },
    /// The last actors that did not go on as they were.
    Restarts,
    /// The last messages that found no room.
    DeadLetters,
    /// Keep an actor's next messages, under that number.
    Tap { number: u64, kind: String, id: String, messages: u32, seconds: u32, payload: Payload },
    /// What is kept under that number, without the first `after` messages.
    Tapped { number: u64, after: u32 },
    /// Keep no more of them, and forget those.
    Untap { number: u64 },
    /// The newest lines that this process has logged; their JSON is at most that long.
    Log { lines: u32, bytes: u32 },
}

/// How much of a traced message's content is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Payload {
    /// Nothing but its name.
    None,
    /// The names of its types and fields.
    Types,
    /// All of it but secrets.
    Redacted,
}

/// A rack's clock.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ClockReport {
    /// The rack's time when it said this.
    pub now: Timestamp,
    /// Somebody on the rack keeps its clock and says that it is right.
    pub synchronised: bool,
}

/// A DHCP server that is none of ours, on a subnet's link.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct ForeignDhcp {
    pub subnet: SubnetId,
    pub server: Ipv4Addr,
    /// The sender's hardware address, where a packet of it was heard.
    pub mac: Option<MacAddr>,
    /// What gave it away.
    pub evidence: String,
    /// Certain enough for the rack to stand aside, unless the subnet says `beside_foreign_dhcp`.
    pub proven: bool,
    pub first: Timestamp,
    pub last: Timestamp,
}

/// A client that asked a rack for an address to boot, where nobody expected it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Stray {
    pub mac: MacAddr,
    /// When it began to ask, by the rack's clock: two minutes of silence end that.
    pub first: Timestamp,
    /// When it was heard last.
    pub at: Timestamp,
    /// The subnet that it asked on, where that is one of the plan's.
    pub subnet: Option<SubnetId>,
    /// The relay that it asked through.
    pub relay: Option<Ipv4Addr>,
    /// The rack's interface that it was heard on.
    pub interface: String,
    /// Why it was not told what to boot.
    pub why: String,
}

impl fmt::Display for Stray {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} asked for an address to boot on ", self.mac)?;
        match (self.relay, self.subnet) {
            (Some(relay), Some(subnet)) => write!(f, "subnet {subnet}, through the relay {relay}")?,
            (Some(relay), None) => write!(f, "{}, through the relay {relay}", self.interface)?,
            (None, Some(subnet)) => write!(f, "subnet {subnet} ({})", self.interface)?,
            (None, None) => f.write_str(&self.interface)?,
        }
        write!(f, ": {}", self.why)
    }
}

/// What a rack is, said once per connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub version: String,
    pub hostname: String,
    pub plan: Generation,
    pub interfaces: Vec<RackInterface>,
    pub listening: Vec<Listening>,
    /// Attempts whose orders the rack holds.
    pub orders: Vec<(SystemId, AttemptId)>,
    pub now: Timestamp,
}

/// One network interface of a rack.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct RackInterface {
    pub name: String,
    pub mac: Option<MacAddr>,
    /// Addresses with their prefixes, host bits kept in `.0`.
    pub addresses: Vec<(std::net::IpAddr, Cidr)>,
}

/// A change of the plan: tables are replaced whole, or by rows. Applied in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct PlanUpdate {
    /// The generation this update starts from; `None`: it holds the whole plan.
    pub base: Option<Generation>,
    pub generation: Generation,
    pub settings: Option<PlanSettings>,
    pub subnets: Option<Vec<PlanSubnet>>,
    pub boot_files: Option<Vec<BootFile>>,
    pub reservations: Rows<Reservation, MacAddr>,
    pub tickets: Rows<Ticket, SystemId>,
    pub zones: Rows<Zone, DnsName>,
    pub records: Rows<RecordSet, RecordKey>,
}

impl PlanUpdate {
    /// An update that leaves all as it is; `base` as in the field.
    #[must_use]
    pub fn empty(base: Option<Generation>, generation: Generation) -> Self {
        Self {
            base,
            generation,
            settings: None,
            subnets: None,
            boot_files: None,
            reservations: Rows::default(),
            tickets: Rows::default(),
            zones: Rows::default(),
            records: Rows::default(),
        }
    }

    /// Whether it leaves all as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::empty(self.base, self.generation)
    }
}

/// A whole plan, as it goes over the link.
impl From<Plan> for PlanUpdate {
    fn from(plan: Plan) -> Self {
        Self {
            base: None,
            generation: plan.generation,
            settings: Some(plan.settings),
            subnets: Some(plan.subnets),
            boot_files: Some(plan.boot_files),
            reservations: Rows { replace: true, put: plan.reservations, remove: Vec::new() },
            tickets: Rows { replace: true, put: plan.tickets, remove: Vec::new() },
            zones: Rows { replace: true, put: plan.zones, remove: Vec::new() },
            records: Rows { replace: true, put: plan.records, remove: Vec::new() },
        }
    }
}

/// A change of a table of rows.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Rows<T, K> {
    /// Whether all old rows go first.
    pub replace: bool,
    pub put: Vec<T>,
    pub remove: Vec<K>,
}

impl<T, K> Default for Rows<T, K> {
    fn default() -> Self {
        Self { replace: false, put: Vec::new(), remove: Vec::new() }
    }
}

/// A complete instruction to the one rack that reaches a machine's BMC. Done once per attempt.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    pub machine: SystemId,
    pub attempt: AttemptId,
    pub hostname: String,
    pub action: PowerAction,
    pub access: PowerAccess,
    /// When the rack gives up and reports.
    pub deadline: Timestamp,
}

/// A change of the machines whose BMCs a rack asks for their power state now and then.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SweepUpdate {
    /// Whether all that were watched before are forgotten, unless they are in `put`.
    pub replace: bool,
    pub put: Vec<SweepTarget>,
    pub remove: Vec<SystemId>,
}

/// One machine to watch, with the credentials of its BMC. A rack keeps them in memory alone.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SweepTarget {
    pub machine: SystemId,
    pub access: PowerAccess,
}

/// The head of a bulk stream; the body's bytes from `offset` follow.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum BulkHeader {
    /// Rack to region: send me this body from `offset` on. The answer is [`BulkAnswer`], then bytes.
    Fetch { body: BodyRef, offset: u64 },
    /// Rack to region: here is a body (a large script output). The answer is [`BulkAnswer`] with the bytes already held; then bytes.
    Store { body: BodyRef },
}

/// The answer to a [`BulkHeader`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum BulkAnswer {
    /// Bytes follow from `offset`, `len` of them.
    Ready { offset: u64, len: u64 },
    /// Nothing to do: the body is already here.
    Held,
    /// The region cannot; the reason and what to do.
    Refused { why: String, remedy: String },
}
