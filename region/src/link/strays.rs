//! Clients that asked a rack for an address to boot and were not expected there: their machine is told, where it waits for them elsewhere.

use actors::core::TraceId;
use schema::messages::{link::Stray, machine::MachineEvent};
use tracing::debug;

use super::Talking;
use crate::app::Missing;

impl Talking {
    /// All that the rack heard lately.
    pub(super) async fn take_strays(&self, strays: Vec<Stray>, trace: TraceId) {
        let fresh = self.app.links.heard_strays(self.rack, strays);
        let macs = fresh.iter().map(|stray| stray.mac).collect();
        for owner in self.app.tickets.of_macs(&macs).into_iter().filter(|owner| owner.ordered) {
            let Some(stray) = fresh.iter().find(|stray| stray.mac == owner.mac).cloned() else { continue };
            let told = async {
                let actor = self.app.machine(owner.machine).await?;
                Ok::<_, Missing>(actor.ask(MachineEvent::Strayed { rack: self.rack, stray }, trace).await?)
            };
            if let Err(error) = told.await {
                debug!(machine = %owner.machine, %error, "not told where it asked; the rack says it again");
            }
        }
    }
}
