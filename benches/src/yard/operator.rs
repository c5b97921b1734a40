//! The yard's operator: adds the fleet's machines and has them commissioned, by the public API as any client would.

use std::{future::Future, time::Duration};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::{Trouble, trouble};
use crate::{
    api::Api,
    fleet::{Fleet, bmcs::Bmcs},
    hardware::Hardware,
};

/// Calls of the API under way at once.
const AT_ONCE: usize = 16;
/// Machines are asked for in so many waves, so long apart.
const WAVES: usize = 8;
const APART: Duration = Duration::from_secs(4);
/// Machines that were refused are asked for again so often, so long apart.
const PATIENCE: u32 = 20;
const AGAIN: Duration = Duration::from_secs(15);
/// Machines of the first wave.
const FEW: usize = 4;

/// Adds all machines; the region names them. Their system ids.
///
/// # Errors
/// What the region refused.
pub async fn enlist(api: &Api, fleet: &Fleet, bmcs: &Bmcs) -> Result<Vec<String>, Trouble> {
    add_all(api, all_described(fleet, bmcs)).await
}

fn all_described(fleet: &Fleet, bmcs: &Bmcs) -> Vec<Value> {
    fleet.hardware().iter().map(|h| described(bmcs, h, fleet.racks())).collect()
}

async fn add_all(api: &Api, machines: Vec<Value>) -> Result<Vec<String>, Trouble> {
    many(machines, |machine| {
        let api = api.clone();
        async move {
            let mut form = enlistment(&machine);
            form.retain(|(name, _)| name != "hostname");
            add(&api, &form).await
        }
    })
    .await
}

/// Adds all machines, and asks for their commissioning in waves. The first few begin at once, so that there is something to see: the others
/// are added meanwhile.
///
/// # Errors
/// What the region refused.
pub async fn bring_up(api: &Api, fleet: &Fleet, bmcs: &Bmcs) -> Result<(), Trouble> {
    let machines = all_described(fleet, bmcs);
    let (added, mut waves) = mpsc::unbounded_channel();
    let adding = async move {
        let (few, others) = machines.split_at(FEW.min(machines.len()));
        for wave in std::iter::once(few).chain(others.chunks(others.len().div_ceil(WAVES).max(1))) {
            added.send(add_all(api, wave.to_vec()).await?).ok(); // The other half failed, and says so.
        }
        Ok::<_, Trouble>(())
    };
    let commissioning = async {
        let mut refused = Vec::new();
        while let Some(wave) = waves.recv().await {
            refused.extend(commission(api, wave).await.0);
            tokio::time::sleep(APART).await;
        }
        insist(api, refused).await
    };
    tokio::try_join!(adding, commissioning).map(|_| ())
}

/// Asks for machines; those that were refused, and why the last one was.
async fn commission(api: &Api, machines: Vec<String>) -> (Vec<String>, Option<Trouble>) {
    let (mut refused, mut why) = (Vec::new(), None);
    for id in machines {
        if let Err(trouble) = api.post(&format!("/MAAS/api/2.0/machines/{id}/?op=commission"), &[]).await {
            refused.push(id);
            why = Some(trouble);
        }
    }
    (refused, why)
}

/// Asks again for what was refused: a region or a rack may have been in trouble.
async fn insist(api: &Api, mut machines: Vec<String>) -> Result<(), Trouble> {
    for _ in 0..PATIENCE {
        machines = commission(api, machines).await.0;
        if machines.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(AGAIN).await;
    }
    commission(api, machines).await.1.map_or(Ok(()), Err)
}

/// Adds one machine; its system id.
///
/// # Errors
/// What the region refused.
pub async fn add(api: &Api, form: &[(String, String)]) -> Result<String, Trouble> {
    let form: Vec<_> = form.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let made = api.post("/MAAS/api/2.0/machines/", &form).await?;
    Ok(made["system_id"].as_str().unwrap_or_default().to_owned())
}

/// A machine for [`enlistment`].
#[must_use]
pub fn described(bmcs: &Bmcs, hardware: &Hardware, racks: u32) -> Value {
    json!({
        "number": hardware.index, "mac": hardware.mac().to_string(), "power": bmcs.parameters(hardware.index),
        "vlan": super::vlan(hardware.index % racks.max(1)).0,
    })
}

/// A machine as the API is asked to add it.
#[must_use]
pub fn enlistment(machine: &Value) -> Vec<(String, String)> {
    let text = |name: &str| machine[name].as_str().unwrap_or_default().to_owned();
    let number = machine["number"].as_u64().unwrap_or(0);
    let mut form = vec![
        ("hostname".to_owned(), format!("yard-{number:05}")),
        ("architecture".into(), "amd64/generic".into()),
        ("mac_addresses".into(), text("mac")),
        ("commission".into(), "false".into()),
        ("vlan".into(), machine["vlan"].to_string()),
    ];
    match machine["power"].as_object() {
        None => form.push(("power_type".into(), "manual".into())),
        Some(power) => {
            let fields =
                power.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()));
            form.extend(fields);
        }
    }
    form
}

/// Does `work` for all of `items`, so many at once; what came of them, in no order.
///
/// # Errors
/// The first that fails; the others are broken off.
pub async fn many<I, T, F, W>(items: Vec<I>, work: W) -> Result<Vec<T>, Trouble>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Trouble>> + Send + 'static,
    W: Fn(I) -> F,
{
    let (mut running, mut done) = (tokio::task::JoinSet::new(), Vec::with_capacity(items.len()));
    let mut items = items.into_iter();
    loop {
        while running.len() < AT_ONCE
            && let Some(item) = items.next()
        {
            running.spawn(work(item));
        }
        match running.join_next().await {
            Some(joined) => done.push(joined.map_err(trouble("a call"))??),
            None => return Ok(done),
        }
    }
}
