//! The three processes of a bench, and the way to the region: started, killed, started again, stopped.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{Bench, child::Child, kill::Victim, usage::Each};
use crate::{
    api::Api,
    yard::{
        Trouble,
        operator::{self, many},
        trouble,
    },
};

/// The processes.
pub(super) struct Crew {
    program: PathBuf,
    dir: PathBuf,
    database: Option<String>,
    region: Child,
    racks: Child,
    fleet: Child,
    /// What region and racks said of themselves when they first began.
    told: Value,
    stand: Value,
    pub(super) api: Api,
}

impl Crew {
    pub(super) async fn start(bench: &Bench, dir: &Path) -> Result<Self, Trouble> {
        let child = |part: &str, spec: Value| Child::start(&bench.program, part, &dir.join(part), &spec);
        let database = bench.database.as_ref().map(|d| d.expose().clone());
        let layout = serde_json::to_value(bench.layout).map_err(trouble("the layout"))?;
        let mut region = child("region", json!({ "racks": bench.layout.racks, "database": database }))?;
        let told = region.hear().await?;
        let spec = json!({ "link": told["link"], "tokens": told["tokens"] });
        let mut racks = child("racks", spec)?;
        let stand = racks.hear().await?;
        region.ask(&json!({ "furnish": stand["ids"] })).await?;
        let mut fleet = child("fleet", json!({ "layout": layout, "doors": stand["doors"] }))?;
        fleet.hear().await?;
        let text = |name: &str| told[name].as_str().unwrap_or_default().to_owned();
        let api = Api::new(&text("url"), &text("api_key"))?;
        let (program, dir) = (bench.program.clone(), dir.to_owned());
        Ok(Self { program, dir, database, region, racks, fleet, told, stand, api })
    }

    pub(super) fn pids(&self, database: Option<u32>) -> Each<u32> {
        let own = [("region", self.region.pid()), ("racks", self.racks.pid()), ("fleet", self.fleet.pid())];
        own.into_iter().chain(database.map(|pid| ("database", pid))).collect()
    }

    /// Adds every machine of the fleet through the API; their system ids.
    pub(super) async fn enlist(&mut self) -> Result<Vec<String>, Trouble> {
        let machines = self.fleet.ask(&json!("machines")).await?;
        let machines = machines.as_array().cloned().unwrap_or_default();
        let forms: Vec<_> = machines.iter().map(operator::enlistment).collect();
        let added = many(forms, |form| {
            let api = self.api.clone();
            async move { operator::add(&api, &form).await }
        });
        added.await
    }

    /// What the fleet counted.
    pub(super) async fn counts(&mut self) -> Result<Value, Trouble> {
        self.fleet.ask(&json!("counts")).await
    }

    fn child(&mut self, victim: Victim) -> &mut Child {
        match victim {
            Victim::Region => &mut self.region,
            Victim::Racks => &mut self.racks,
        }
    }

    /// `kill -9`, and the same program again at once, on what the one before left: its new process id.
    pub(super) async fn kill(&mut self, victim: Victim) -> Result<u32, Trouble> {
        let link = &self.told["link"];
        let spec = match victim {
            Victim::Region => {
                let again = json!({ "link": link, "api": self.told["port"] });
                json!({ "racks": 0, "database": self.database, "again": again })
            }
            Victim::Racks => json!({ "link": link, "tokens": [], "again": self.stand["seats"] }),
        };
        self.child(victim).kill().await?;
        let dir = self.dir.join(victim.name());
        let child = Child::start(&self.program, victim.name(), &dir, &spec)?;
        let pid = child.pid();
        *self.child(victim) = child;
        Ok(pid)
    }

    /// Waits for what a process that was started again says of itself; it may be given up and be called again.
    pub(super) async fn heard(&mut self, victim: Victim) -> Result<(), Trouble> {
        self.child(victim).hear().await.map(drop)
    }

    /// Whether every rack is linked, in the eyes of the one that is new: the other may not yet have noticed that its link is dead.
    pub(super) async fn linked(&mut self, victim: Victim, racks: u32) -> Result<bool, Trouble> {
        let linked = match victim {
            Victim::Racks => self.racks.ask(&json!("linked")).await?["linked"].as_u64().unwrap_or(0),
            Victim::Region => {
                let listed = self.api.get("/MAAS/api/2.0/rackcontrollers/").await?;
                let connected = listed.as_array().into_iter().flatten().filter(|rack| rack["connected"] == true);
                connected.count() as u64
            }
        };
        Ok(linked >= u64::from(racks))
    }

    /// What the region says of machines that did not become Ready, each in words.
    pub(super) async fn stuck(&self, fleet: &Value) -> Vec<String> {
        let mut told = Vec::new();
        for machine in fleet["named"].as_array().into_iter().flatten().take(10) {
            let id = machine["system_id"].as_str().unwrap_or_default();
            match self.api.get(&format!("/inspect/v1/explain/{id}")).await {
                Ok(explained) => told.push(explained["text"].as_str().unwrap_or_default().to_owned()),
                Err(error) => told.push(format!("{id}: {error}")),
            }
        }
        told
    }

    pub(super) async fn stop(self) {
        // Racks first, so that the region hears their goodbye.
        self.fleet.stop().await;
        self.racks.stop().await;
        self.region.stop().await;
    }
}
