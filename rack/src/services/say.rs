//! What a rack says of its services to its regions: at once when one changed, and every two seconds or so, which is also its sign of life.

use std::time::Duration;

use actors::core::TraceId;
use schema::messages::link::FromRack;

use super::Services;
use crate::link::Links;

/// Between two words, on average. The region calls a rack silent after three times this.
const EVERY: Duration = Duration::from_secs(2);
/// At least that long between two words, whatever changes.
const GAP: Duration = Duration::from_millis(200);

/// Says it until it is aborted.
pub async fn say(services: Services, links: Links) {
    let (mut changed, mut ready) = (services.changed(), links.ready().subscribe());
    loop {
        if !ready.borrow_and_update().is_empty() {
            links.say(&FromRack::Services(services.statuses()), TraceId::default()).await;
        }
        tokio::time::sleep(GAP).await;
        // Racks that started together do not speak together.
        let pause = EVERY.mul_f64(0.75 + 0.5 * rand::random::<f64>());
        tokio::select! {
            _ = changed.changed() => {}
            _ = ready.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}
