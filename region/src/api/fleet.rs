//! The fleet at a glance, as JSON. What is counted, and how, is the census's.

use super::call::{Own, OwnAnswer, json};

/// GET `/fleet`: machines by status and step, how long steps take, and who is stuck.
pub async fn show(Own(call): Own) -> OwnAnswer {
    call.user()?;
    Ok(json(&call.house.app.census.fleet(actors::clock::now()).json()))
}
