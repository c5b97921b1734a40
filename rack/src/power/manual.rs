//! The driver for machines that a person switches: it reports that a hand is needed, and nothing else.

use actors::errand::Ran;
use schema::power::{PowerAccess, PowerAction};

use super::{Power, Running};

/// Asks a person.
#[derive(Debug)]
pub struct Manual;

impl Power for Manual {
    fn run<'a>(&'a self, _action: PowerAction, _access: &'a PowerAccess) -> Running<'a> {
        Box::pin(async { Ok(Ran::ByHand) })
    }
}
