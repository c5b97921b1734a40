//! The names that the region composes, and what racks are told of them, as `region::dns` has it. Only the racks' own are needed here.

use std::sync::Arc;

use actors::rack::Duty;
use region::{
    dns::{Composer, Delta},
    plans::Told,
};
use schema::messages::link::PlanUpdate;

use crate::seeds::world::World;

/// All names, and their changes in order.
#[derive(Default)]
pub(super) struct Names {
    composer: Composer,
    log: Vec<Delta>,
}

impl World {
    /// Racks or catalogue may be others: names are composed anew.
    pub(super) fn compose_names(&mut self) {
        if !self.scenario.house.names {
            return;
        }
        let fit = self.connected().into_iter().filter(|id| self.region.fit(*id, Duty::Names).is_ok());
        let hello = |id| {
            let conn = self.region.conns.get(self.by_rack.get(&id)?)?;
            Some((id, conn.hello.as_ref()?.interfaces.clone()))
        };
        let racks = fit.filter_map(hello).collect();
        let content = Arc::new(self.region.content().clone());
        let names = &mut self.region.names;
        names.composer.catalogue(content);
        names.composer.racks(racks);
        let serial = u32::try_from(names.log.len()).unwrap_or(u32::MAX).saturating_add(1);
        names.log.extend(names.composer.delta(serial));
    }

    /// What a rack is told of names: all, or what is new.
    pub(super) fn pages(&mut self, rack: usize, whole: bool, told: &mut Told) -> Vec<PlanUpdate> {
        let Some(conn) = self.region.conns.get_mut(&rack) else { return Vec::new() };
        let names = &self.region.names;
        let known = std::mem::replace(&mut conn.named, names.log.len());
        if whole && !names.log.is_empty() {
            return vec![told.page(names.composer.whole())];
        }
        names.log.get(known..).unwrap_or_default().iter().map(|delta| told.page(delta.clone())).collect()
    }
}
