//! What a rack reports of a machine: facts with evidence, each harmless when it comes twice.

use std::net::{IpAddr, Ipv4Addr};

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};

use crate::{
    boot::{BodyRef, BootMethod},
    id::{AttemptId, ReportSeq, ResultId, SubnetId, SystemId},
    net::MacAddr,
    power::PowerAction,
    script::{ScriptOutput, SignalStatus},
    status::PowerState,
    time::Timestamp,
};

/// One fact from one rack. `seq` orders a rack's reports; (machine, attempt) says what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
pub struct Report {
    pub seq: ReportSeq,
    /// When the rack saw it, by the rack's clock.
    pub at: Timestamp,
    pub machine: SystemId,
    pub attempt: AttemptId,
    pub fact: Fact,
}

/// Something that happened to a machine, seen by a rack. Only what the far end did counts as evidence of an end.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "fact")]
pub enum Fact {
    /// The rack holds the order and will carry it out once.
    OrderAccepted,
    /// The rack cannot carry it out: a missing tool, an unknown driver, an attempt that is over.
    OrderRefused { why: String, remedy: String },
    /// The rack holds the ticket: it will offer, boot and hear this machine.
    TicketHeld,
    /// The bodies the ticket names are here and verified; `fetched` bytes came over the link just now (0: all were cached).
    ResourcesReady { fetched: u64 },
    /// A body the ticket names could not be had.
    ResourcesMissing { body: BodyRef, why: String },
    /// A try at the BMC begins; `try_number` counts from 1.
    PowerTry { action: PowerAction, try_number: u32 },
    /// The BMC was asked and says so. For a power driver that cannot ask, `state` is unknown.
    PowerDone { action: PowerAction, state: PowerState },
    /// The action failed for good.
    PowerFailed { action: PowerAction, why: String, remedy: String },
    /// The driver needs a person's hand (`manual`).
    PowerByHand { action: PowerAction },
    /// The power state was seen outside an action (a sweep).
    PowerSeen { state: PowerState },
    /// A DISCOVER came, and what was offered.
    Offered { mac: MacAddr, ip: Ipv4Addr, subnet: SubnetId, method: Option<BootMethod> },
    /// The machine REQUESTed and the lease is durable.
    Leased { mac: MacAddr, ip: Ipv4Addr, subnet: SubnetId, method: Option<BootMethod>, lease_s: u32 },
    /// No address could be given.
    NoAddress { mac: MacAddr, subnet: SubnetId, why: String, remedy: String },
    /// A boot file was asked for. `found` is false where the answer was "not found".
    FileAsked { file: String, kind: FileKind, service: String, found: bool },
    /// A boot file was received to its last byte, by the far end's acknowledgement or a closed HTTP exchange.
    FileFetched { file: String, kind: FileKind, service: String, bytes: u64, took_ms: u32 },
    /// A transfer ended before its last byte.
    FileAborted { file: String, kind: FileKind, service: String, why: String },
    /// cloud-init (or the tiny client) fetched its preseed.
    PreseedFetched { from: IpAddr },
    /// A preseed was asked for from an address that holds no lease of that machine, and refused.
    PreseedRefused { from: IpAddr, why: String },
    /// A metadata item was fetched with the node's key.
    MetadataFetched { item: String },
    /// User-data was fetched with the node's key.
    UserDataFetched,
    /// A request came with a wrong key or a clock too far off.
    AuthRefused { why: String, skew_s: Option<i64> },
    /// The scripts' tar was fetched.
    ScriptsFetched { scripts: u32 },
    /// A status event of cloud-init.
    CloudInit { name: String, event_type: String, result: Option<String>, description: String },
    /// A script has begun (or is installing, or applying its network configuration).
    ScriptStarted { result: ResultId, name: String, status: SignalStatus },
    /// A script has ended.
    ScriptEnded {
        result: ResultId,
        name: String,
        status: SignalStatus,
        exit_status: i32,
        runtime_ms: u64,
        output: Box<ScriptOutput>,
    },
    /// The runner lives.
    Heartbeat,
    /// The runner's last word.
    Finished { status: SignalStatus, error: String },
    /// Nothing answered at the BMC's address: another rack may reach it. Of a sweep, attempt 0 and action query.
    BmcUnreachable { action: PowerAction, why: String, remedy: String },
    /// A try at the BMC failed in a way that may pass; the next one follows.
    PowerTryFailed { action: PowerAction, try_number: u32, why: String },
    /// What the machine sent with its own key could not be read, and was refused.
    SignalRefused { why: String },
    /// Another host asks for an address with the same MAC: firmware of another UUID. A cloned card, or a copied virtual machine.
    TwoHosts { mac: MacAddr, uuids: [[u8; 16]; 2] },
}

impl Fact {
    /// How [`Fact::FileAborted`] says that nothing more came of the machine, where it said nothing of its own.
    pub const FELL_SILENT: &str = "the machine fell silent";
}

/// What a boot file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileKind {
    Loader,
    Config,
    Kernel,
    Initrd,
    Squashfs,
    Other,
}
