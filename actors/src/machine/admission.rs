//! Who may start what: creation, changes, deletion, the request to commission, broken and fixed.

use schema::{
    commissioning::{CommissionStep, StepRecord, StepState},
    messages::machine::{Brief, CommissionOptions, MachineChanges, MachineSpec},
    projection::{EventLine, Level, Projection},
    script::ResultStatus,
    status::{NodeStatus, PowerState},
    time::Timestamp,
};

use super::{Attempt, AttemptScript, Life, Machine, MachineEffect};
use crate::core::Step;

impl Machine {
    pub(super) fn created(&self, by: &str, spec: &MachineSpec, now: Timestamp) -> Step<Self> {
        if spec.macs.is_empty() {
            return Step::refused(
                format!("machine {} has no MAC address", spec.hostname),
                "give the MAC address of the interface it boots from",
            );
        }
        let next = Self { life: Life::Present, spec: spec.clone(), ..self.clone() };
        Step::moved(next).with([event(
            now,
            Level::Info,
            "NODE_CREATED",
            format!("{} was added.", spec.hostname),
            Some(by),
        )])
    }

    pub(super) fn updated(&self, by: &str, changes: &MachineChanges, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_some() && (changes.power.is_some() || changes.architecture.is_some()) {
            return Step::refused(
                "power and architecture cannot change while the machine is being commissioned",
                format!("abort it first: hostler machine abort {}", self.spec.hostname),
            );
        }
        let mut spec = self.spec.clone();
        set(&mut spec.hostname, changes.hostname.as_ref());
        set(&mut spec.domain, changes.domain.as_ref());
        set(&mut spec.architecture, changes.architecture.as_ref());
        set(&mut spec.power, changes.power.as_ref());
        set(&mut spec.description, changes.description.as_ref());
        set(&mut spec.zone, changes.zone.as_ref());
        set(&mut spec.pool, changes.pool.as_ref());
        spec.vlan = changes.vlan.or(spec.vlan);
        let power_state = if changes.power.is_some() { PowerState::Unknown } else { self.power_state };
        if spec == self.spec {
            return Step::ignored("nothing differs from what is stored");
        }
        let text = format!("{} was changed.", spec.hostname);
        Step::moved(Self { spec, power_state, ..self.clone() }).with([event(
            now,
            Level::Audit,
            "NODE_CHANGED",
            text,
            Some(by),
        )])
    }

    pub(super) fn deleted(&self, _by: &str) -> Step<Self> {
        if self.open_attempt().is_some() {
            return Step::refused(
                format!("{} is being commissioned", self.spec.hostname),
                format!("abort it first: hostler machine abort {}", self.spec.hostname),
            );
        }
        let cancel: Vec<_> = self.errand.iter().map(super::PowerErrand::cancel).collect();
        Step::moved(Self { life: Life::Deleted, errand: None, wait: None, ..self.clone() }).with(cancel)
    }

    pub(super) fn commission(
        &self,
        by: &str,
        options: &CommissionOptions,
        brief: &Brief,
        now: Timestamp,
    ) -> Step<Self> {
        if let Err(refusal) = self.may_commission(brief) {
            return *refusal;
        }
        let Some(image) = brief.image.clone() else { return no_image(&self.spec) };
        let mut attempt = Attempt {
            id: self.next_attempt,
            by: by.to_owned(),
            options: options.clone(),
            started: now,
            ended: None,
            image,
            kernel_opts: brief.kernel_opts.clone(),
            scripts: brief
                .scripts
                .iter()
                .map(|s| AttemptScript { script: s.clone(), status: ResultStatus::Pending, started: None })
                .collect(),
            bmc_racks: Vec::new(),
            bmc_rack: 0,
            away: Vec::new(),
            ailing: Vec::new(),
            astray: None,
            boot_racks: Vec::new(),
            held_by: Vec::new(),
            ready_on: Vec::new(),
            ordered: None,
            cut: None,
            again: None,
            off: None,
            boot_subnets: Vec::new(),
            steps: first_steps(by, brief, now),
            seen: Vec::new(),
            last_signal: None,
            ip: None,
            boot_mac: None,
            scripts_ok: None,
            place: brief.place,
            held: None,
        };
        attempt.take_racks(brief, now);
        let ticket = attempt.ticket();
        let effects = [
            MachineEffect::Store(Projection::ScriptsChosen {
                attempt: attempt.id,
                at: now,
                scripts: brief.scripts.clone(),
            }),
            event(now, Level::Info, "COMMISSIONING", format!("Commissioning attempt {} begins.", attempt.id), Some(by)),
        ];
        let cancel = self.errand.iter().map(super::PowerErrand::cancel);
        let next = Self {
            status: NodeStatus::Commissioning,
            previous_status: self.status,
            error: String::new(),
            next_attempt: attempt.id.next(),
            attempt: Some(attempt),
            errand: None,
            ..self.clone()
        };
        next.expecting(now).with(cancel).with(ticket).with(effects)
    }

    /// It waited for its turn; now it begins, with the racks as they are now.
    pub(super) fn turn(&self, brief: &Brief, now: Timestamp) -> Step<Self> {
        if self.open_attempt().is_none_or(|a| a.place.is_none()) {
            return Step::ignored("it waits for no turn");
        }
        let lack = self.lacks_racks(brief);
        let next = self.with_attempt(|a| {
            a.place = None;
            match lack {
                None => a.take_racks(brief, now),
                // It waits for those with which it was asked for, and has heard nothing of them since.
                Some((why, remedy)) => a.see(now, format!("{why}; {remedy}")),
            }
            a.done(CommissionStep::Order, now, None, "region", "its turn came; order and ticket composed".into());
        });
        let ticket = next.open_attempt().and_then(Attempt::ticket);
        next.expecting(now).with(ticket)
    }

    /// What must hold before anything is started. The refusal names what is missing and the command that brings it.
    fn may_commission(&self, brief: &Brief) -> Result<(), Box<Step<Self>>> {
        use NodeStatus::{Broken, FailedCommissioning, FailedTesting, New, Ready};
        let refuse = |why: String, remedy: String| Err(Box::new(Step::refused(why, remedy)));
        if self.open_attempt().is_some() {
            let remedy = format!(
                "see how it stands with `hostler explain {0}`, or `hostler machine abort {0}`",
                self.spec.hostname
            );
            return refuse(format!("{} is being commissioned already", self.spec.hostname), remedy);
        }
        if !matches!(self.status, New | FailedCommissioning | FailedTesting | Ready | Broken) {
            return refuse(
                format!("a machine in status \"{}\" cannot be commissioned", self.status.label()),
                "it must be New, Ready, Broken, Failed commissioning or Failed testing".into(),
            );
        }
        match self.lacks_racks(brief) {
            Some((why, remedy)) => refuse(why, remedy),
            None => Ok(()),
        }
    }

    /// Why no rack can switch or boot it, and what brings one; `None`: there are some.
    fn lacks_racks(&self, brief: &Brief) -> Option<(String, String)> {
        // Those that are connected and do not serve are the better answer to why there is none.
        let lame = |what: String| {
            let whys: Vec<_> = brief.lame.iter().map(|(rack, a)| format!("rack {rack}: {}", a.why)).collect();
            let mut remedies: Vec<_> = brief.lame.iter().map(|(_, ailment)| ailment.remedy.clone()).collect();
            remedies.dedup();
            (!whys.is_empty()).then(|| (format!("{what}: {}", whys.join("; ")), remedies.join("; or ")))
        };
        if brief.bmc_racks.is_empty() {
            let bmc = self.spec.power.address().map_or_else(String::new, |a| format!(" that reaches the BMC {a}"));
            let remedy = "start one with `hostler rack`; see `GET /MAAS/api/2.0/rackcontrollers/`";
            let none = || (format!("no rack{bmc} is connected"), remedy.into());
            return Some(lame(format!("no rack{bmc} can switch it")).unwrap_or_else(none));
        }
        if !brief.boot_racks.is_empty() {
            return None;
        }
        if let Some(lame) = lame("no rack can boot it where it boots".into()) {
            return Some(lame);
        }
        Some(match &brief.unserved {
            Some((why, remedy)) => {
                (format!("no connected rack serves DHCP where this machine boots: {why}"), remedy.clone())
            }
            None => (
                "no connected rack serves DHCP on a subnet where this machine could boot".into(),
                "add the subnet with `hostler subnet add CIDR --dynamic START-END`, and a rack with an address in it"
                    .into(),
            ),
        })
    }

    pub(super) fn mark_broken(&self, by: &str, comment: &str, now: Timestamp) -> Step<Self> {
        if self.status == NodeStatus::Broken {
            return Step::ignored("the machine is marked broken already");
        }
        if !self.status.may_become(NodeStatus::Broken) {
            return Step::refused(
                format!("a machine in status \"{}\" cannot be marked broken", self.status.label()),
                "wait until what is under way has ended",
            );
        }
        let error = if comment.is_empty() { "Marked broken.".to_owned() } else { comment.to_owned() };
        let line = event(now, Level::Warning, "MARKED_BROKEN", error.clone(), Some(by));
        if self.open_attempt().is_some() {
            return self.end_attempt(NodeStatus::Broken, error, now).with([line]);
        }
        let next = Self { status: NodeStatus::Broken, previous_status: self.status, error, ..self.clone() };
        next.resting().with([line])
    }

    pub(super) fn mark_fixed(&self, by: &str, comment: &str, now: Timestamp) -> Step<Self> {
        if self.status != NodeStatus::Broken {
            return Step::refused(
                format!("the machine is not broken; its status is \"{}\"", self.status.label()),
                "nothing to fix",
            );
        }
        let bad = self.attempt.iter().flat_map(|a| &a.scripts).find(|s| !fine(s.status));
        if let Some(script) = bad {
            return Step::refused(
                format!("the script {} of the last commissioning is \"{}\"", script.script.name, script.status.label()),
                format!("commission it again: hostler machine commission {}", self.spec.hostname),
            );
        }
        let text = if comment.is_empty() { "Marked fixed.".to_owned() } else { comment.to_owned() };
        let next =
            Self { status: NodeStatus::Ready, previous_status: self.status, error: String::new(), ..self.clone() };
        next.resting().with([event(now, Level::Info, "MARKED_FIXED", text, Some(by))])
    }
}

fn fine(status: ResultStatus) -> bool {
    matches!(status, ResultStatus::Passed | ResultStatus::Skipped)
}

fn set<T: Clone>(field: &mut T, change: Option<&T>) {
    if let Some(value) = change {
        *field = value.clone();
    }
}

/// The twelve records of a new attempt: the first two are done by deciding, the third runs; the second does where it waits for its turn.
fn first_steps(by: &str, brief: &Brief, now: Timestamp) -> Vec<StepRecord> {
    let done = |evidence: String| StepRecord {
        state: StepState::Done,
        started: Some(now),
        ended: Some(now),
        rack: None,
        service: "region".into(),
        evidence,
    };
    let mut steps = vec![StepRecord::default(); CommissionStep::ALL.len()];
    if let [request, order, rack, ..] = steps.as_mut_slice() {
        *request = done(format!("{by} asked for it"));
        *order = done(format!("{} scripts chosen; order and ticket composed", brief.scripts.len()));
        let runs = StepRecord { state: StepState::Running, started: Some(now), ..StepRecord::default() };
        *(if brief.place.is_some() { order } else { rack }) = runs;
    }
    steps
}

fn no_image(spec: &MachineSpec) -> Step<Machine> {
    let arch = spec.architecture.split('/').next().unwrap_or_default();
    Step::refused(
        format!("there is no ephemeral image for architecture {arch}"),
        format!("make one with `hostler image build --arch {arch}` and `hostler image add`"),
    )
}

/// A line of the machine's history, as an effect.
pub(super) fn event(
    at: Timestamp,
    level: Level,
    event_type: &str,
    text: impl Into<String>,
    by: Option<&str>,
) -> MachineEffect {
    MachineEffect::Store(Projection::Event(EventLine {
        at,
        level,
        event_type: event_type.into(),
        description: text.into(),
        by: by.map(str::to_owned),
    }))
}
