//! `machines/` and `machines/<id>/`: which operation is served where. The operations themselves stand in the files below.

pub mod change;
pub mod filter;
pub mod operate;

use schema::id::SystemId;
use serde_json::{Map, Value, json};

use super::{
    call::{Answer, Call, gone, json},
    explain,
    fault::Fault,
    params::Params,
    shape,
};
use crate::store::queries::MachineFilter;

/// Operations of a machine that MAAS has and a later issue brings; the machine's actor refuses them with that reason.
const LATER: &[&str] = &[
    "test",
    "override_failed_testing",
    "set_workload_annotations",
    "set_owner_data",
    "deploy",
    "release",
    "set_storage_layout",
    "mount_special",
    "unmount_special",
    "clear_default_gateways",
    "restore_networking_configuration",
    "restore_storage_configuration",
    "restore_default_configuration",
    "rescue_mode",
    "exit_rescue_mode",
    "lock",
    "unlock",
];

/// Operations of the whole fleet that a later issue brings.
const FLEET_LATER: &[&str] = &["set_zone", "accept", "accept_all", "release", "allocate", "add_chassis", "clone"];

/// `machines/`.
pub async fn all(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => list(&call).await,
        ("POST", "") => change::create(&call).await,
        ("GET", "is_registered") => is_registered(&call).await,
        ("GET", "power_parameters") => power_parameters_of_many(&call).await,
        ("GET", "list_allocated") => {
            call.user()?;
            Ok(json(&json!([])))
        }
        ("POST", op) if FLEET_LATER.contains(&op) => {
            call.user()?;
            Err(Fault::conflict(
                format!("Operation {op} comes with a later version."),
                "Commission machines one by one with machines/<id>/?op=commission.",
            ))
        }
        _ => Err(call.unknown()),
    }
}

/// `machines/<id>/`, and `nodes/<id>/`, which is the same for a machine.
pub async fn one(call: Call) -> Answer {
    let id = id(&call)?;
    match call.wants() {
        ("GET", "") => {
            call.user()?;
            show(&call, id).await
        }
        ("PUT", "") => change::update(&call, id).await,
        ("DELETE", "") => {
            change::delete(&call, id).await?;
            Ok(gone())
        }
        ("GET", "explain") => {
            call.user()?;
            Ok(json(&explain::now(&call.house, id).await?))
        }
        ("GET", "power_parameters") => {
            call.admin()?;
            let state = call.house.state(id).await?;
            Ok(json(&Value::Object(power_parameters(&call, id, &state.spec.power).await?)))
        }
        ("GET", "query_power_state") => operate::query_power_state(&call, id).await,
        ("GET", "get_token") => {
            call.admin()?;
            call.house.machine(id).await?;
            Ok(json(&Value::Null))
        }
        ("GET", "details" | "get_curtin_config") => {
            call.user()?;
            let why = format!("Operation {} comes with a later version.", call.wants().1);
            Err(Fault::conflict(why, "Read nodes/<id>/results/ for what commissioning found."))
        }
        ("POST", op) => {
            let op = op.to_owned();
            operate::post(&call, id, &op).await
        }
        _ => Err(call.unknown()),
    }
}

/// `nodes/`: machines here (devices and controllers come with a later issue).
pub async fn nodes(call: Call) -> Answer {
    match call.wants() {
        ("GET", "") => list(&call).await,
        ("GET", "is_registered") => is_registered(&call).await,
        _ => Err(call.unknown()),
    }
}

/// The id in the path.
///
/// # Errors
/// 404 in MAAS's words when it is none.
pub fn id(call: &Call) -> Result<SystemId, Fault> {
    call.part("system_id").parse().map_err(|_| Fault::no("Machine"))
}

/// The whole machine, as most operations answer.
pub(super) async fn show(call: &Call, id: SystemId) -> Answer {
    let facts = call.house.machine(id).await?;
    Ok(json(&shape::machine::machine(&facts, &call.house.catalogue())))
}

async fn list(call: &Call) -> Answer {
    call.user()?;
    let filter = filter::Filter::read(&call.params)?;
    let catalogue = call.house.catalogue();
    let machines = call.house.machines(filter.rows()).await?;
    let shown: Vec<_> =
        machines.iter().filter(|m| filter.admits(m)).map(|m| shape::machine::machine(m, &catalogue)).collect();
    Ok(json(&Value::Array(shown)))
}

async fn is_registered(call: &Call) -> Answer {
    let mac: schema::net::MacAddr =
        call.params.parsed("mac_address")?.ok_or_else(|| Fault::Bad("No provided mac_address!".into()))?;
    let holders = call.house.summaries(MachineFilter { macs: vec![mac], ..MachineFilter::default() }).await?;
    Ok(json(&json!(!holders.is_empty())))
}

/// The flat object of a machine's power parameters, secrets opened: for administrators only.
async fn power_parameters(
    call: &Call,
    id: SystemId,
    power: &schema::power::PowerConfig,
) -> Result<Map<String, Value>, Fault> {
    let mut shown: Map<String, Value> = power.params.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    if !power.secret_fields.is_empty() {
        let secrets = call.house.power_secrets(id).await?;
        shown.extend(secrets.into_iter().map(|(name, secret)| (name, json!(secret.expose()))));
    }
    Ok(shown)
}

async fn power_parameters_of_many(call: &Call) -> Answer {
    call.admin()?;
    let wanted = ids(&call.params);
    let mut shown = Map::new();
    for machine in call.house.summaries(MachineFilter::default()).await? {
        let id = machine.system_id;
        if wanted.is_empty() || wanted.iter().any(|w| w == id.as_str()) {
            let state = call.house.state(id).await?;
            shown.insert(id.to_string(), Value::Object(power_parameters(call, id, &state.spec.power).await?));
        }
    }
    Ok(json(&Value::Object(shown)))
}

fn ids(params: &Params) -> Vec<String> {
    [params.list("id"), params.list("system_id")].concat()
}
