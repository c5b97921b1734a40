//! A commissioning under way: which fact ends which of the twelve steps. Only what the far end did is evidence of an end.
//!
//! | fact | what it does |
//! |---|---|
//! | `TicketHeld`, `ResourcesReady` | step 7; the first rack with both lets the order to power on go out |
//! | `OrderAccepted` | step 3 |
//! | `PowerDone` on | step 4 |
//! | `Leased` | step 5, and 3 and 4 where nothing told of them |
//! | `FileFetched` loader | step 6 (not used where the NIC's own iPXE asks for its script) |
//! | `FileAsked` kernel | step 8 |
//! | `FileFetched` squashfs, or initrd without one | step 9 |
//! | `UserDataFetched` | step 10 |
//! | `Finished` | step 11; then off, and step 12 |

use std::net::Ipv4Addr;

use schema::{
    boot::BootMethod,
    commissioning::{CommissionStep, StepRecord, StepState},
    id::{AttemptId, RackId},
    messages::{
        machine::{Derived, MachineTimer},
        report::{Fact, FileKind, Report},
    },
    net::MacAddr,
    power::{PowerAction, PowerType},
    projection::Level,
    status::PowerState,
    time::Timestamp,
};

use super::{
    Attempt, Machine, MachineEffect,
    admission::event,
    power::{ONE_OF_SEVERAL, failed_event},
    waits::shown,
};
use crate::core::Step;

/// Lines of evidence that a wait carries.
const SEEN_MAX: usize = 12;

impl Machine {
    /// A report belongs to the attempt under way, to a power errand, or to nothing any more.
    pub(super) fn reported(&self, rack: RackId, report: &Report, derived: &Derived, now: Timestamp) -> Step<Self> {
        if let Some(step) = self.errand_fact(rack, report.attempt, &report.fact, now) {
            return step;
        }
        if let Fact::PowerSeen { state } = report.fact {
            return self.seen_power(rack, state, report.at, now);
        }
        if let (Fact::BmcUnreachable { why, .. }, AttemptId(0)) = (&report.fact, report.attempt) {
            return self.power_unseen(rack, why, now);
        }
        match self.open_attempt() {
            Some(attempt) if attempt.off == Some(report.attempt) => self.off_fact(rack, report, now),
            Some(attempt) if attempt.place.is_some() => Step::ignored("it waits for its turn; no rack has its ticket"),
            Some(attempt) if [attempt.id, attempt.on_number()].contains(&report.attempt) => {
                self.attempt_fact(rack, report, derived, now)
            }
            Some(attempt) => {
                Step::ignored(format!("attempt {} is under way, the report is of {}", attempt.id, report.attempt))
            }
            None => Step::ignored("no attempt is under way"),
        }
    }

    fn attempt_fact(&self, rack: RackId, report: &Report, derived: &Derived, now: Timestamp) -> Step<Self> {
        match &report.fact {
            Fact::TicketHeld | Fact::ResourcesReady { .. } | Fact::ResourcesMissing { .. } => {
                self.rack_fact(rack, report, now)
            }
            Fact::OrderAccepted
            | Fact::OrderRefused { .. }
            | Fact::PowerTry { .. }
            | Fact::PowerTryFailed { .. }
            | Fact::PowerDone { .. }
            | Fact::PowerFailed { .. }
            | Fact::BmcUnreachable { .. }
            | Fact::PowerByHand { .. }
            | Fact::PowerSeen { .. } => self.power_fact(rack, report, now),
            Fact::Offered { .. } => Step::ignored("an offer is no evidence; the machine's request is awaited"),
            Fact::Leased { mac, ip, method, .. } => self.leased(rack, report.at, *mac, *ip, *method, now),
            Fact::NoAddress { mac, why, remedy, .. } => {
                self.hindered(report.at, format!("no address for {mac}: {why}; {remedy}"), now)
            }
            Fact::FileAsked { .. } | Fact::FileFetched { .. } | Fact::FileAborted { .. } => {
                self.file_fact(rack, report, now)
            }
            Fact::PreseedFetched { .. } | Fact::MetadataFetched { .. } => Step::ignored("on the way to the user-data"),
            Fact::PreseedRefused { from, why } => {
                self.hindered(report.at, format!("preseed refused to {from}: {why}"), now)
            }
            Fact::UserDataFetched => self.user_data(rack, report.at, now),
            Fact::AuthRefused { why, skew_s } => {
                let side = |s: i64| if s < 0 { "behind" } else { "ahead of" };
                let skew = skew_s.map_or_else(String::new, |s| {
                    let seconds = s.unsigned_abs();
                    format!("; its clock is {seconds} s {} the rack's: let it take its time from the rack (NTP, DHCP's option 42), or set its firmware's clock", side(s))
                });
                self.hindered(report.at, format!("a request of the machine was refused: {why}{skew}"), now)
            }
            Fact::SignalRefused { why } => {
                self.hindered(report.at, format!("what the machine sent was refused: {why}"), now)
            }
            Fact::TwoHosts { mac, uuids } => self.two_hosts(report.at, *mac, uuids, now),
            Fact::ScriptsFetched { .. } | Fact::Heartbeat => self.signalled(report.at, now),
            Fact::CloudInit { name, result, description, .. } => {
                self.cloud_init(report.at, name, result.as_deref(), description, now)
            }
            Fact::ScriptStarted { result, status, .. } => self.script_started(*result, *status, report.at, now),
            Fact::ScriptEnded { .. } => self.script_ended(report, derived, now),
            Fact::Finished { status, error } => self.finished(rack, *status, error, report.at, now),
        }
    }

    /// The machine with its attempt changed by `change`.
    pub(super) fn with_attempt(&self, change: impl FnOnce(&mut Attempt)) -> Self {
        let mut next = self.clone();
        if let Some(attempt) = next.attempt.as_mut() {
            change(attempt);
        }
        next
    }

    /// What the racks of the boot VLAN say of ticket and bodies. The first that has both lets the order go out.
    fn rack_fact(&self, rack: RackId, report: &Report, now: Timestamp) -> Step<Self> {
        if let Fact::ResourcesMissing { body, why } = &report.fact {
            return self.hindered(report.at, format!("rack {rack} lacks a body ({} bytes): {why}", body.len), now);
        }
        let known = |racks: &[RackId]| racks.contains(&rack);
        let already = self.open_attempt().is_none_or(|a| match report.fact {
            Fact::TicketHeld => known(&a.held_by),
            _ => known(&a.ready_on),
        });
        if already {
            return Step::ignored("said before");
        }
        let mut next = self.with_attempt(|attempt| match report.fact {
            Fact::ResourcesReady { fetched } => {
                attempt.ready_on.push(rack);
                let evidence =
                    if fetched == 0 { "cached".into() } else { format!("{fetched} bytes fetched and verified") };
                attempt.done(CommissionStep::BootResources, report.at, Some(rack), "http", evidence);
            }
            _ => attempt.held_by.push(rack),
        });
        let order = next.attempt.as_mut().and_then(|a| a.order_when_bootable(now));
        next.expecting(now).with(order)
    }

    fn power_fact(&self, rack: RackId, report: &Report, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        let in_charge = attempt.bmc_racks.get(attempt.bmc_rack) == Some(&rack);
        if !in_charge || report.attempt != attempt.on_number() {
            return Step::ignored("another order is the one that counts by now");
        }
        match &report.fact {
            Fact::OrderAccepted if attempt.is_done(CommissionStep::RackChosen) => Step::ignored("accepted before"),
            Fact::OrderAccepted => self
                .with_attempt(|a| {
                    let evidence = format!("rack {rack} accepted the order; ticket held by {}", a.held_by.len());
                    a.done(CommissionStep::RackChosen, report.at, Some(rack), "power", evidence);
                })
                .expecting(now),
            Fact::PowerTry { action, try_number } => {
                let text = format!("try {try_number} to {}", action.label());
                let line =
                    event(report.at, Level::Info, "NODE_POWER_ON_STARTING", format!("Rack {rack}: {text}."), None);
                let line = (*try_number == 1).then_some(line);
                self.with_attempt(|a| a.see(report.at, text)).expecting(now).with(line)
            }
            // One line of evidence for each try: how it ended takes the place of how it began.
            Fact::PowerTryFailed { action, try_number, why } => {
                let begun = format!("try {try_number} to {}", action.label());
                self.with_attempt(|a| {
                    a.seen.retain(|line| !line.ends_with(&begun));
                    a.see(report.at, format!("{begun} failed: {why}"));
                })
                .expecting(now)
            }
            Fact::PowerDone { .. } if attempt.is_done(CommissionStep::PowerOn) => Step::ignored("known to be on"),
            Fact::PowerDone { state: PowerState::On, .. } => {
                let mut next = self.with_attempt(|a| {
                    a.assume(CommissionStep::RackChosen, report.at, "the order was carried out");
                    a.done(CommissionStep::PowerOn, report.at, Some(rack), "power", "the BMC says on".into());
                });
                (next.power_state, next.power_asked) = (PowerState::On, Some(report.at));
                next.expecting(now).with([event(report.at, Level::Info, "NODE_POWERED_ON", "The BMC says on.", None)])
            }
            Fact::PowerByHand { .. } => {
                self.with_attempt(|a| a.see(report.at, "a person must switch it on".into())).expecting(now)
            }
            // Another rack may reach the BMC, or have the tool; a wrong password is wrong everywhere.
            Fact::BmcUnreachable { why, remedy, .. } | Fact::OrderRefused { why, remedy } => {
                self.power_failed(rack, why, remedy, now)
            }
            Fact::PowerFailed { why, remedy, .. } => self.power_refused(rack, why, remedy, now),
            _ => Step::ignored("no state of the power"),
        }
    }

    /// The next rack that may reach the BMC gets the order; without one the attempt fails.
    pub(super) fn power_failed(&self, rack: RackId, why: &str, remedy: &str, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        if attempt.is_done(CommissionStep::PowerOn) {
            return self.hindered(now, format!("rack {rack}: {why}"), now);
        }
        if !attempt.another_rack() {
            return self.power_refused(rack, why, remedy, now);
        }
        let text = format!("Rack {rack}: {why}. {remedy}");
        let line = event(now, Level::Error, failed_event(PowerAction::NetworkBoot), text, None);
        let cancel = MachineEffect::CancelOrder { rack, attempt: attempt.on_number() };
        let mut next = self.with_attempt(|a| {
            let rest = a.bmc_racks.iter().skip(a.bmc_rack + 1);
            a.bmc_rack += 1 + rest.clone().position(|rack| !a.away.contains(rack)).unwrap_or(0);
            a.see(now, format!("rack {rack} failed ({why}); the next rack is tried"));
            a.begin(CommissionStep::RackChosen, now);
        });
        let order = next.attempt.as_mut().and_then(|a| a.order(now));
        next.expecting(now).with([cancel, line]).with(order)
    }

    /// No rack can switch the machine: the attempt fails. Which racks tried stands in what was seen.
    fn power_refused(&self, rack: RackId, why: &str, remedy: &str, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        if attempt.is_done(CommissionStep::PowerOn) {
            return self.hindered(now, format!("rack {rack}: {why}"), now);
        }
        let text = format!("Rack {rack}: {why}");
        let line = event(now, Level::Error, failed_event(PowerAction::NetworkBoot), format!("{text}. {remedy}"), None);
        self.fail(format!("{text}. Remedy: {remedy}"), now).with([line])
    }

    fn leased(
        &self,
        rack: RackId,
        at: Timestamp,
        mac: MacAddr,
        ip: Ipv4Addr,
        method: Option<BootMethod>,
        now: Timestamp,
    ) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        let same = attempt.ip == Some(ip) && attempt.boot_mac == Some(mac);
        // Firmware asks once in a boot. Again, after it has a loader, is another boot.
        let loaded = attempt.steps.get(CommissionStep::NextServer as usize).and_then(|record| record.ended);
        let anew = method.is_some_and(|m| m != BootMethod::Ipxe) && loaded.is_some_and(|loaded| loaded < at);
        // A loader's report that overtook the lease's is no other boot, nor is a report that came before.
        let booting = attempt.is_done(CommissionStep::DhcpLease) && !attempt.is_done(CommissionStep::Metadata);
        if anew && same && booting {
            let text = format!("{mac} asks for an address by network boot once more: the machine started anew");
            return self.hindered(at, text, now);
        }
        if attempt.is_done(CommissionStep::DhcpLease) && same && (method.is_none() || method == self.boot_method) {
            return Step::ignored("the same address again");
        }
        let first = !attempt.is_done(CommissionStep::DhcpLease);
        let cancel = attempt.order_elsewhere(rack, at).filter(|_| method.is_some());
        let mut next = self.with_attempt(|a| {
            a.ip = Some(ip);
            a.boot_mac = Some(mac);
            if first {
                a.assume(CommissionStep::RackChosen, at, "the machine asks for an address");
                a.assume(CommissionStep::PowerOn, at, "the machine asks for an address");
                a.done(CommissionStep::DhcpLease, at, Some(rack), "dhcp", format!("{mac} took {ip}"));
            }
            if method == Some(BootMethod::Ipxe) {
                a.not_used(CommissionStep::NextServer, at, "iPXE asks for its script without another loader");
            }
        });
        next.boot_method = match (method, self.boot_method.filter(|_| !first)) {
            // iPXE that was chain-loaded says nothing of the firmware below it.
            (Some(BootMethod::Ipxe), Some(firmware)) => Some(firmware),
            (Some(method), _) => Some(method),
            (None, known) => known,
        };
        if self.spec.power.power_type == PowerType::Manual || !attempt.is_done(CommissionStep::PowerOn) {
            next.power_state = PowerState::On;
        }
        let line = first
            .then(|| event(at, Level::Info, "NODE_DHCP_LEASE", format!("{mac} took {ip} from rack {rack}."), None));
        next.expecting(now).with(cancel).with(line)
    }

    fn file_fact(&self, rack: RackId, report: &Report, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return Step::ignored("no attempt is under way") };
        let at = report.at;
        match &report.fact {
            Fact::FileAsked { kind: FileKind::Kernel, found: true, service, .. }
                if !attempt.is_done(CommissionStep::BootConfig) =>
            {
                let line = event(
                    at,
                    Level::Info,
                    "PERFORMING_PXE_BOOT",
                    format!("The kernel was asked for over {service}."),
                    None,
                );
                let next = self.with_attempt(|a| {
                    a.not_used(CommissionStep::NextServer, at, "no separate loader was seen");
                    a.done(CommissionStep::BootConfig, at, Some(rack), service, "the kernel was asked for".into());
                });
                next.expecting(now).with([line])
            }
            Fact::FileAsked {
                found: false,
                kind: FileKind::Kernel | FileKind::Initrd | FileKind::Squashfs,
                file,
                ..
            } => self.hindered(at, format!("{} was asked for and is not here", shown(file)), now),
            Fact::FileAsked { found: false, kind: FileKind::Loader, file, .. } => {
                let text = format!(
                    "{} was asked for and is not here; bring the loaders with `hostler image loaders`",
                    shown(file)
                );
                self.hindered(at, text, now)
            }
            Fact::FileAsked { .. } => Step::ignored("asked for; the last byte is awaited"),
            Fact::FileFetched { kind: FileKind::Loader, file, service, bytes, took_ms } => {
                if attempt.is_over(CommissionStep::NextServer) {
                    return Step::ignored("a loader was fetched before");
                }
                let evidence = format!("{} fetched to its last byte ({bytes} bytes, {took_ms} ms)", shown(file));
                let line = event(at, Level::Info, boot_event(service), evidence.clone(), None);
                self.with_attempt(|a| a.done(CommissionStep::NextServer, at, Some(rack), service, evidence))
                    .expecting(now)
                    .with([line])
            }
            Fact::FileFetched { kind, file, service, bytes, took_ms } if self.is_last_file(*kind) => {
                if attempt.is_done(CommissionStep::EphemeralBoot) {
                    return Step::ignored("the ephemeral system was fetched before");
                }
                let evidence = format!("{} fetched to its last byte ({bytes} bytes, {took_ms} ms)", shown(file));
                let line = event(at, Level::Info, "LOADING_EPHEMERAL", evidence.clone(), None);
                let next = self.with_attempt(|a| {
                    a.not_used(CommissionStep::NextServer, at, "no separate loader was seen");
                    a.assume(CommissionStep::BootConfig, at, "the ephemeral system was fetched");
                    a.done(CommissionStep::EphemeralBoot, at, Some(rack), service, evidence);
                });
                next.expecting(now).with([line])
            }
            Fact::FileFetched { kind: FileKind::Kernel | FileKind::Initrd, file, bytes, took_ms, .. } => {
                self.noted(at, format!("{} fetched ({bytes} bytes, {took_ms} ms)", shown(file)), now)
            }
            Fact::FileFetched { .. } => Step::ignored("fetched; the kernel is awaited"),
            Fact::FileAborted { file, kind: FileKind::Kernel | FileKind::Initrd | FileKind::Squashfs, why, .. } => {
                self.hindered(at, format!("{} broke off: {why}", shown(file)), now)
            }
            Fact::FileAborted { file, kind: FileKind::Loader, why, .. } if why.contains(Fact::FELL_SILENT) => {
                self.hindered(at, format!("{} broke off: {why}", shown(file)), now)
            }
            _ => Step::ignored("firmware probes a size and breaks off; that is normal"),
        }
    }

    fn is_last_file(&self, kind: FileKind) -> bool {
        let squashfs = self.open_attempt().is_some_and(|a| a.image.squashfs.is_some());
        kind == if squashfs { FileKind::Squashfs } else { FileKind::Initrd }
    }

    fn user_data(&self, rack: RackId, at: Timestamp, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_none_or(|a| a.is_done(CommissionStep::Metadata)) {
            return Step::ignored("the user-data was fetched before");
        }
        let next = self.with_attempt(|a| {
            a.assume(CommissionStep::EphemeralBoot, at, "cloud-init runs");
            a.done(
                CommissionStep::Metadata,
                at,
                Some(rack),
                "metadata",
                "user-data fetched with the node's key".into(),
            );
            a.last_signal = Some(at);
        });
        next.expecting(now).with([event(
            at,
            Level::Info,
            "GATHERING_INFO",
            "The ephemeral system runs; scripts follow.",
            None,
        )])
    }

    fn cloud_init(
        &self,
        at: Timestamp,
        name: &str,
        result: Option<&str>,
        description: &str,
        now: Timestamp,
    ) -> Step<Self> {
        match result {
            Some("FAIL" | "FAILURE" | "WARN") => {
                let text = format!("cloud-init: {name} ended with {}: {description}", result.unwrap_or_default());
                let line = event(at, Level::Warning, "NODE_COMMISSIONING_EVENT_FAILED", text.clone(), None);
                self.with_attempt(|a| a.see(at, text)).expecting(now).with([line])
            }
            _ => self.signalled(at, now),
        }
    }

    /// A sign of life. Written down at most every 30 s: seventy events of one boot must not be seventy rows.
    fn signalled(&self, at: Timestamp, now: Timestamp) -> Step<Self> {
        let fresh = self.open_attempt().and_then(|a| a.last_signal).is_some_and(|s| at.since(s).as_secs() < 30);
        let scripts = self.open_attempt().and_then(Attempt::current_step) == Some(CommissionStep::Scripts);
        if fresh || !scripts {
            return Step::ignored("a sign of life; nothing changes");
        }
        self.with_attempt(|a| a.last_signal = a.last_signal.max(Some(at))).expecting(now)
    }

    /// Something went wrong that may yet heal: evidence for the wait, and a line of history.
    pub(super) fn hindered(&self, at: Timestamp, text: String, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_some_and(|a| a.seen.last().is_some_and(|last| last.ends_with(&text))) {
            return Step::ignored("seen just before");
        }
        let line = event(at, Level::Warning, "NODE_COMMISSIONING_HINDERED", text.clone(), None);
        self.with_attempt(|a| a.see(at, text)).expecting(now).with([line])
    }

    fn noted(&self, at: Timestamp, text: String, now: Timestamp) -> Step<Self> {
        self.with_attempt(|a| a.see(at, text)).expecting(now)
    }

    pub(super) fn timer_elapsed(&self, timer: MachineTimer, now: Timestamp) -> Step<Self> {
        let Some(attempt) = self.open_attempt() else { return self.errand_late(now) };
        let Some(wait) = &self.wait else { return Step::ignored("nothing is awaited") };
        if timer == MachineTimer::Script {
            return self.script_overdue(attempt, now);
        }
        if now < wait.deadline {
            return Step::ignored("the deadline has moved").arm(MachineTimer::Deadline, wait.deadline);
        }
        self.deadline_passed(attempt, now)
    }

    fn deadline_passed(&self, attempt: &Attempt, now: Timestamp) -> Step<Self> {
        let (Some(step), Some(wait)) = (attempt.current_step(), &self.wait) else {
            return Step::ignored("nothing is awaited");
        };
        let why = match step {
            CommissionStep::RackChosen if attempt.ordered.is_some() => Some("it did not accept the order in time"),
            CommissionStep::PowerOn if attempt.another_rack() => Some("it did not report in time"),
            _ => None,
        };
        if let (Some(why), Some(rack)) = (why, attempt.bmc_racks.get(attempt.bmc_rack)) {
            return self.power_failed(*rack, why, &wait.remedy, now);
        }
        if self.boots_again(attempt, step) {
            return self.boot_again(step, now);
        }
        self.fail(format!("{} Remedy: {}", attempt.missed(step, &wait.what), wait.remedy), now)
    }
}

impl MachineEffect {
    /// Whether the effect goes to that rack.
    pub(super) fn concerns(&self, at: RackId) -> bool {
        match self {
            Self::SendOrder { rack, .. } | Self::CancelOrder { rack, .. } => *rack == at,
            Self::PublishTicket { racks, .. } => racks.contains(&at),
            Self::WithdrawTicket { .. } | Self::Store(_) => false,
        }
    }
}

impl Attempt {
    fn record(&mut self, step: CommissionStep) -> Option<&mut StepRecord> {
        self.steps.get_mut(step as usize)
    }

    /// Whether that step was seen to end.
    #[must_use]
    pub fn is_done(&self, step: CommissionStep) -> bool {
        self.steps.get(step as usize).is_some_and(|r| r.state == StepState::Done)
    }

    fn is_over(&self, step: CommissionStep) -> bool {
        self.steps.get(step as usize).is_some_and(|r| !matches!(r.state, StepState::Pending | StepState::Running))
    }

    /// The step ended, with its evidence; the next open step begins.
    pub(super) fn done(
        &mut self,
        step: CommissionStep,
        at: Timestamp,
        rack: Option<RackId>,
        service: &str,
        evidence: String,
    ) {
        self.end(step, StepState::Done, at, rack, service, evidence);
    }

    /// The step was not seen, but what was seen proves it over.
    pub(super) fn assume(&mut self, step: CommissionStep, at: Timestamp, proof: &str) {
        if !self.is_over(step) {
            self.end(
                step,
                StepState::Done,
                at,
                None,
                "region",
                format!("not reported; proved by what followed: {proof}"),
            );
        }
    }

    /// This firmware path does without the step.
    fn not_used(&mut self, step: CommissionStep, at: Timestamp, why: &str) {
        if !self.is_over(step) {
            self.end(step, StepState::NotUsed, at, None, "", why.into());
        }
    }

    fn end(
        &mut self,
        step: CommissionStep,
        state: StepState,
        at: Timestamp,
        rack: Option<RackId>,
        service: &str,
        evidence: String,
    ) {
        if let Some(record) = self.record(step) {
            let started = record.started.unwrap_or(at).min(at);
            *record =
                StepRecord { state, started: Some(started), ended: Some(at), rack, service: service.into(), evidence };
        }
        if let Some(next) = self.current_step() {
            let running = self.record(next).is_some_and(|r| r.state == StepState::Running);
            if !running {
                self.begin(next, at);
            }
        }
    }

    pub(super) fn begin(&mut self, step: CommissionStep, at: Timestamp) {
        if let Some(record) = self.record(step) {
            *record = StepRecord { state: StepState::Running, started: Some(at), ..StepRecord::default() };
        }
    }

    /// A line of evidence; the oldest goes.
    pub(super) fn see(&mut self, at: Timestamp, text: String) {
        let (_, _, _, h, m, s) = at.civil();
        self.seen.push(format!("{h:02}:{m:02}:{s:02} {text}"));
        let surplus = self.seen.len().saturating_sub(SEEN_MAX);
        self.seen.drain(..surplus);
    }

    /// The order to power on, once a rack can boot the machine: it holds the ticket and every body.
    fn order_when_bootable(&mut self, now: Timestamp) -> Option<MachineEffect> {
        let bootable = self.held_by.iter().any(|rack| self.ready_on.contains(rack));
        if self.ordered.is_some() || !bootable {
            return None;
        }
        self.order(now)
    }

    pub(super) fn order(&mut self, now: Timestamp) -> Option<MachineEffect> {
        self.ordered = Some(now);
        self.power_on_order()
    }

    /// The machine boots from that rack, as was ordered of another, which cannot know and might boot it once more: it need not any longer.
    fn order_elsewhere(&self, boots: RackId, at: Timestamp) -> Option<MachineEffect> {
        let rack = self.bmc_racks.get(self.bmc_rack).copied().filter(|rack| *rack != boots)?;
        let out = self.ordered.is_some_and(|ordered| ordered <= at) && !self.is_done(CommissionStep::PowerOn);
        out.then(|| MachineEffect::CancelOrder { rack, attempt: self.on_number() })
    }

    pub(super) fn power_on_order(&self) -> Option<MachineEffect> {
        let ordered = self.ordered?;
        let limit = CommissionStep::RackChosen.deadline() + CommissionStep::PowerOn.deadline();
        let rack = *self.bmc_racks.get(self.bmc_rack)?;
        let limit = if self.another_rack() { limit.min(ONE_OF_SEVERAL) } else { limit };
        Some(MachineEffect::SendOrder {
            rack,
            attempt: self.on_number(),
            action: PowerAction::NetworkBoot,
            deadline: ordered + limit,
        })
    }
}

fn boot_event(service: &str) -> &'static str {
    if service == "tftp" { "NODE_TFTP_REQUEST" } else { "NODE_HTTP_REQUEST" }
}
