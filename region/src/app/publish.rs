//! Tickets: the attempt's node key, and everything a machine is handed, put into the racks' plans.

use actors::{
    core::TraceId,
    machine::{Attempt, Machine},
    rack::LinkState,
    subnet::SubnetEvent,
};
use schema::{
    catalogue::RangeType,
    id::{AttemptId, RackId, SystemId},
    messages::machine::MachineEvent,
    plan::{NodeKey, TicketBoot},
    secret::Secret,
    time::Timestamp,
};
use tracing::{error, warn};

use super::{App, Missing};
use crate::{
    perform::node_key,
    plans::{self, BootRow},
};

impl App {
    /// Puts the attempt's ticket into the plans of `racks`. What keeps it from that is logged; the attempt's deadline says the rest.
    pub(crate) async fn publish(&self, machine: &Machine, attempt: AttemptId, racks: Vec<RackId>, expires: Timestamp) {
        let id = machine.spec.system_id;
        let Some(open) = machine.open_attempt().filter(|a| a.id == attempt) else { return };
        let key = match self.node_key(id, attempt).await {
            Ok(key) => key,
            Err(error) => return error!(machine = %id, %attempt, %error, "the ticket cannot be published"),
        };
        let boot = self.ticket_boot(open, key);
        if self.tickets.publish(id, BootRow { attempt, racks, expires, boot }) {
            self.mark(id);
        }
    }

    /// That machine's ticket changed: for the racks of its VLAN where that is known, else for all.
    pub(crate) fn mark(&self, machine: SystemId) {
        let vlan = self.tickets.vlan(machine);
        let racks = vlan.map(|vlan| plans::vlan_racks(&self.catalogue_content(), vlan));
        self.links.mark(machine, racks.as_ref());
    }

    /// Tells a machine that its turn to be commissioned has come.
    pub(crate) async fn give_turn(&self, machine: SystemId, trace: TraceId) {
        let told = async {
            let actor = self.machine(machine).await?;
            let brief = self.power_brief(&actor.snapshot());
            Ok::<_, Missing>(actor.ask(MachineEvent::Turn { brief }, trace).await?)
        };
        if let Err(error) = told.await {
            warn!(%machine, %error, "not told that its turn has come; it is told again");
            self.turns.put_back(machine);
        }
    }

    fn ticket_boot(&self, attempt: &Attempt, key: NodeKey) -> TicketBoot {
        let boot = plans::ticket_boot(&self.catalogue_content(), attempt, key, self.user_data);
        let given = |result| boot.scripts.iter().any(|s| s.script_result_id == result);
        for gone in attempt.scripts.iter().filter(|s| !given(s.script.result)) {
            warn!(script = gone.script.name, "the script left the catalogue; the attempt goes on without it");
        }
        boot
    }

    /// The attempt's node key; minted and sealed when there is none.
    async fn node_key(&self, machine: SystemId, attempt: AttemptId) -> Result<NodeKey, Missing> {
        let name = format!("{}oauth", node_key(attempt));
        if let Some(kept) = self.seal.get(machine.as_str(), &name).await?
            && let [consumer_key, token_key, token_secret] = kept.expose().split(':').collect::<Vec<_>>()[..]
        {
            let token_secret = Secret::new(token_secret.to_owned());
            return Ok(NodeKey { consumer_key: consumer_key.into(), token_key: token_key.into(), token_secret });
        }
        let draw = || format!("{:032x}", rand::random::<u128>());
        let (consumer_key, token_key, secret) = (draw(), draw(), draw());
        let kept = Secret::new(format!("{consumer_key}:{token_key}:{secret}"));
        self.seal.put(machine.as_str(), &name, &kept).await?;
        Ok(NodeKey { consumer_key, token_key, token_secret: Secret::new(secret) })
    }

    /// The machines whose present work that rack has a part in, by hostname.
    pub(crate) fn machines_of(&self, rack: RackId) -> Vec<String> {
        let states = self.machines.all().into_iter().map(|actor| actor.snapshot());
        let mut names: Vec<_> = states.filter(|m| m.counts_on(rack)).map(|m| m.spec.hostname.clone()).collect();
        names.sort();
        names
    }

    /// Tells the machines that rack works for what has become of it. Of its link, only as long as it stands so: who goes on to tell that it
    /// was lost must not come after those who tell that it is back.
    pub(crate) async fn tell_machines(&self, rack: RackId, event: &MachineEvent, trace: TraceId) {
        let told = match event {
            MachineEvent::RackLink { up, .. } => Some(*up),
            MachineEvent::RackBegan { .. } => Some(true),
            _ => None,
        };
        for actor in self.machines.all() {
            let up = self.rack_state(rack).map(|state| state.link == LinkState::Connected);
            if told.is_some() && told != up {
                return;
            }
            if actor.snapshot().counts_on(rack)
                && let Err(error) = actor.ask(event.clone(), trace).await
            {
                warn!(machine = %actor.id(), %rack, %error, "not told what has become of its rack");
            }
        }
    }
}

impl App {
    /// Tells every subnet how many addresses the catalogue gives it.
    pub(crate) async fn size_subnets(&self, trace: TraceId) {
        let c = self.catalogue_content();
        for id in c.subnets.keys() {
            let dynamic = c.ranges.values().filter(|r| r.subnet == *id && r.range_type == RangeType::Dynamic);
            let size = dynamic.map(|r| r.range.len()).fold(0_u64, u64::saturating_add);
            let reserved = c.reserved_ips.values().filter(|r| r.subnet == *id).count() as u64;
            let told = async {
                Ok::<_, Missing>(self.subnet(*id).await?.ask(SubnetEvent::Sized { size, reserved }, trace).await?)
            };
            if let Err(error) = told.await {
                warn!(subnet = %id, %error, "not told its size");
            }
        }
    }
}
