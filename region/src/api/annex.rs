//! Operations that the program around a region adds to its API: `POST /annex/NAME/SYSTEM_ID`, an administrator's. The yard's hand is one.

use std::{collections::BTreeMap, sync::Arc};

use actors::machine::Machine;
use serde_json::Value;

use super::{
    call::{Own, OwnAnswer, json},
    fault::Fault,
};

/// What an annex answers: a value, or why not and what to do.
pub type Done = Result<Value, (String, String)>;
/// An operation on one machine. It must not wait.
pub type Annex = Arc<dyn Fn(&Machine) -> Done + Send + Sync>;
/// Operations by name.
pub type Annexes = BTreeMap<&'static str, Annex>;

/// POST `/annex/NAME/SYSTEM_ID`.
pub async fn call(Own(call): Own) -> OwnAnswer {
    call.admin()?;
    let name = call.part("name");
    let annex = call.house.annexes.get(name).cloned();
    let annex = annex.ok_or_else(|| Fault::NotFound(format!("This region's host has no operation \"{name}\".")))?;
    let id = super::machines::id(&call).map_err(|_| Fault::NotFound("There is no machine of that id.".into()))?;
    let done = annex(&*call.house.state(id).await?);
    Ok(json(&done.map_err(|(why, remedy)| Fault::conflict(why, remedy))?))
}
