//! Who may come in: pinned certificates, and tokens that are used once. All answers come from the durable catalogue.

use std::{net::SocketAddr, sync::PoisonError};

use actors::{
    catalogue::CatalogueEvent,
    core::Verdict,
    link::{Admitted, Doorkeeper, Enrolling, Pending, Refusal},
};
use schema::{
    boot::Sha256,
    catalogue::RackEntry,
    id::{RackId, SystemId},
};
use tracing::{info, warn};

use crate::{
    app::{App, Missing, new_trace},
    store::queries,
};

/// The region's doorkeeper.
pub struct Door(pub App);

impl Doorkeeper for Door {
    fn admit(&self, fingerprint: Sha256) -> Pending<'_, Result<Admitted, Refusal>> {
        Box::pin(async move {
            let entry = self.entry(fingerprint);
            let entry = match entry {
                Some(entry) => Some(entry),
                None => {
                    // Another process may have enrolled it.
                    self.0.reload_catalogue().await.map_err(|e| not_now(&e))?;
                    self.entry(fingerprint)
                }
            };
            let again = "enrol it again: hostler rack enrol --region HOST:PORT --token TOKEN";
            let entry =
                entry.ok_or_else(|| Refusal::new("this certificate belongs to no rack of this region", again))?;
            if entry.revoked {
                return Err(Refusal::new(format!("rack {} ({}) was revoked", entry.id, entry.hostname), again));
            }
            let rack = entry.id;
            let stored = self.0.store.read(move |db| queries::report_seen(db, rack)).await;
            let stored = stored.map_err(|e| not_now(&Missing::Store(e)))?;
            let session = self.0.links.session(rack, stored);
            let last_report = session.lock().unwrap_or_else(PoisonError::into_inner).last_report();
            Ok(Admitted { rack, last_report })
        })
    }

    fn enrol(&self, rack: Enrolling) -> Pending<'_, Result<RackId, Refusal>> {
        Box::pin(async move {
            // A token may have been made by another process since the catalogue was loaded.
            if !self.0.catalogue_content().enrolment_tokens.contains_key(&rack.token.to_string()) {
                self.0.reload_catalogue().await.map_err(|e| not_now(&e))?;
            }
            let id = self.id_for(&rack.hostname).await.map_err(|e| not_now(&e))?;
            if self.0.links.is_connected(id) {
                let why = format!("rack {id} is connected under the name {}", rack.hostname);
                return Err(Refusal::new(why, "stop it if it is this one, or give this one another name with --name"));
            }
            let entry = RackEntry {
                id,
                hostname: rack.hostname.clone(),
                certificate_sha256: rack.fingerprint.to_string(),
                revoked: false,
                drained: None,
            };
            let event = CatalogueEvent::Enrol { token_sha256: rack.token.to_string(), rack: entry };
            match self.0.change_catalogue(event, new_trace()).await {
                Ok(Verdict::Refused { why, remedy }) => Err(Refusal::new(why, remedy)),
                Ok(_) => {
                    info!(rack = %id, hostname = rack.hostname, peer = %rack.peer, "enrolled");
                    Ok(id)
                }
                Err(error) => Err(not_now(&error)),
            }
        })
    }

    fn refused(&self, peer: SocketAddr, refusal: &Refusal) {
        warn!(%peer, %refusal, "not let in");
    }
}

impl Door {
    fn entry(&self, fingerprint: Sha256) -> Option<RackEntry> {
        let text = fingerprint.to_string();
        self.0.catalogue_content().racks.values().find(|r| r.certificate_sha256 == text).cloned()
    }

    /// A rack that is enrolled again under its name keeps its id, with the VLANs it serves; the old certificate ends with it.
    async fn id_for(&self, hostname: &str) -> Result<RackId, Missing> {
        let c = self.0.catalogue_content();
        if let Some(known) = c.racks.values().find(|r| r.hostname == hostname) {
            return Ok(known.id);
        }
        loop {
            let id = SystemId::from_draws(rand::random());
            let machine = self.0.store.read(move |db| queries::load_actor(db, "machine", id.as_str())).await?;
            if machine.is_none() && !c.racks.contains_key(&id) {
                return Ok(id);
            }
        }
    }
}

fn not_now(error: &Missing) -> Refusal {
    Refusal::new(format!("the region cannot look it up now: {error}"), "try again; see the region's log")
}
