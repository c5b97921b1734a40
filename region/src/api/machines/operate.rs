//! Operations of one machine: each becomes an event of its actor, and the verdict becomes the answer.

use std::time::Duration;

use schema::{
    id::SystemId,
    messages::machine::{CommissionOptions, MachineEvent},
    power::PowerAction,
    status::PowerState,
};
use serde_json::json;

use super::{LATER, show};
use crate::api::{
    call::{Answer, Call, json},
    fault::Fault,
    params::Params,
};

/// MAAS's own limit: a BMC has this long to answer `query_power_state`.
const QUERY: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(50);

/// A POST with an operation.
pub async fn post(call: &Call, id: SystemId, op: &str) -> Answer {
    let by = || call.admin().map(|c| c.username.clone());
    let comment = || {
        let text = call.params.filled("comment").or_else(|| call.params.filled("error_description"));
        text.unwrap_or_default().to_owned()
    };
    match op {
        "commission" => commission(call, id, &by()?, options(&call.params)?).await?,
        "abort" => call.house.obey(id, MachineEvent::Abort { by: by()?, comment: comment() }).await?,
        "mark_broken" => call.house.obey(id, MachineEvent::MarkBroken { by: by()?, comment: comment() }).await?,
        "mark_fixed" => call.house.obey(id, MachineEvent::MarkFixed { by: by()?, comment: comment() }).await?,
        "power_on" => power(call, id, &by()?, PowerAction::On).await?,
        "power_off" => power(call, id, &by()?, PowerAction::Off).await?,
        op if LATER.contains(&op) => {
            call.house.obey(id, MachineEvent::Operation { by: by()?, operation: op.to_owned() }).await?;
        }
        _ => return Err(call.unknown()),
    }
    show(call, id).await
}

/// Commissions: the brief is looked up, the actor decides.
pub async fn commission(call: &Call, id: SystemId, by: &str, options: CommissionOptions) -> Result<(), Fault> {
    let brief = call.house.brief(id, &options).await?;
    call.house.obey(id, MachineEvent::Commission { by: by.to_owned(), options, brief }).await
}

async fn power(call: &Call, id: SystemId, by: &str, action: PowerAction) -> Result<(), Fault> {
    let brief = call.house.power_brief(id).await?;
    call.house.obey(id, MachineEvent::Power { by: by.to_owned(), action, brief }).await
}

/// The options of a commissioning, by MAAS's names; `none` as the only testing script is no tests.
///
/// # Errors
/// 400 that names the field.
pub fn options(params: &Params) -> Result<CommissionOptions, Fault> {
    let truth = |name: &str| params.truth(name).map(Option::unwrap_or_default);
    Ok(CommissionOptions {
        enable_ssh: truth("enable_ssh")?,
        skip_bmc_config: truth("skip_bmc_config")?,
        skip_networking: truth("skip_networking")?,
        skip_storage: truth("skip_storage")?,
        commissioning_scripts: params.list("commissioning_scripts"),
        testing_scripts: params.list("testing_scripts"),
    })
}

/// GET `op=query_power_state`: asks the BMC and waits for its answer, at most 60 s. A power type that cannot be asked answers at once.
pub async fn query_power_state(call: &Call, id: SystemId) -> Answer {
    let by = call.user()?.username.clone();
    let before = call.house.state(id).await?;
    if !before.spec.power.power_type.queryable() {
        return Ok(json(&json!({"state": PowerState::Unknown.label()})));
    }
    let before = before.power_asked;
    power(call, id, &by, PowerAction::Query).await?;
    let limit = actors::clock::tick() + QUERY;
    loop {
        let now = call.house.state(id).await?;
        if now.errand.is_none() && now.power_asked != before {
            return Ok(json(&json!({"state": now.power_state.label()})));
        }
        if now.errand.is_none() && now.power_state == PowerState::Error {
            return Ok(json(&json!({"state": "error"})));
        }
        if actors::clock::tick() >= limit {
            return Err(Fault::unavailable(
                "The BMC did not answer within 60 s.",
                "Check its address and cable, and that a rack reaches it (hostler explain).",
            ));
        }
        tokio::time::sleep(GLANCE).await;
    }
}
