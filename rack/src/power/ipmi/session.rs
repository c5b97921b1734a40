//! A session with a BMC, and the action that is carried out in it: which commands, in which order, and what refusals mean. No I/O here;
//! [`super::native`] carries its datagrams, and so does the deterministic yard.

use std::sync::Arc;

use actors::errand::Ran;
use schema::{power::PowerAction, status::PowerState, time::Timestamp};

use crate::power::{
    dialogue::{Asker, Dialogue, Then as Script},
    rmcp::{
        BootFlags, Command, Completion, Console, Control, Event, Login, Malformed, Reply,
        console::{Failure, Step, Then as Next, Wait},
    },
};

type Answer = Result<Reply, Failure>;
type Desk = Asker<Command, Answer>;

/// A console, and what is done with it now.
#[derive(Debug)]
pub struct Session {
    console: Console,
    script: Option<Dialogue<Command, Answer, Result<Ran, Failure>>>,
}

/// A decision.
#[derive(Debug)]
pub struct Move {
    /// Send these, in that order.
    pub send: Vec<Vec<u8>>,
    pub then: Then,
}

/// What follows.
#[derive(Debug)]
pub enum Then {
    /// [`Event::Elapsed`] is due at its end; replaces the wait before.
    Wait(Wait),
    /// The datagram changes nothing, and the wait under way goes on.
    Ignored(Malformed),
    /// The action is over. The session may be kept if it [stands](Session::is_open).
    Ended(Result<Ran, Failure>),
}

impl Session {
    /// None yet: it is set up when it is needed.
    #[must_use]
    pub fn new(login: Arc<Login>) -> Self {
        Self { console: Console::new(login), script: None }
    }

    /// Who logs in.
    #[must_use]
    pub fn login(&self) -> &Login {
        self.console.login()
    }

    /// Whether it stands, so that the next action needs no set-up.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.console.is_open()
    }

    /// Begins that action; one under way is forgotten. `random` is drawn anew each time.
    pub fn begin(&mut self, action: PowerAction, efi: bool, random: impl FnMut() -> [u8; 16], now: Timestamp) -> Move {
        self.script = Some(Dialogue::new(move |desk| carry_out(desk, action, efi)));
        self.go_on(None, random, now)
    }

    /// Goes on after a datagram, silence or a refusal.
    pub fn step(&mut self, event: &Event<'_>, mut random: impl FnMut() -> [u8; 16], now: Timestamp) -> Move {
        let step = self.console.step(event, random(), now);
        self.go_on(Some(step), random, now)
    }

    /// Ends it: what to send, if it stands.
    pub fn close(&mut self, random: [u8; 16], now: Timestamp) -> Option<Vec<u8>> {
        let step = self.console.step(&Event::Close, random, now);
        self.console = step.next;
        step.send
    }

    fn go_on(&mut self, mut step: Option<Step>, mut random: impl FnMut() -> [u8; 16], now: Timestamp) -> Move {
        let mut out = Vec::new();
        loop {
            let answer = match step {
                None => None,
                Some(Step { next, send, then }) => {
                    self.console = next;
                    out.extend(send);
                    match then {
                        Next::Wait(wait) => return Move { send: out, then: Then::Wait(wait) },
                        Next::Ignored(why) => return Move { send: out, then: Then::Ignored(why) },
                        Next::Ended(answer) => Some(answer),
                        Next::Closed => Some(Err(Failure::Confused)),
                    }
                }
            };
            let ended = match self.script.as_mut().map(|script| script.step(answer)) {
                Some(Script::Ask(command)) => {
                    step = Some(self.console.step(&Event::Ask(command), random(), now));
                    continue;
                }
                Some(Script::Ended(ended)) => ended,
                Some(Script::Still) | None => Err(Failure::Confused),
            };
            self.script = None;
            return Move { send: out, then: Then::Ended(ended) };
        }
    }
}

/// One action as commands.
async fn carry_out(desk: Desk, action: PowerAction, efi: bool) -> Result<Ran, Failure> {
    let mut notes = Vec::new();
    match action {
        PowerAction::Query => {
            let state = if is_on(&desk).await? { PowerState::On } else { PowerState::Off };
            return Ok(Ran::State { state });
        }
        PowerAction::On => switch(&desk, Control::On).await?,
        PowerAction::Off => switch(&desk, Control::Off).await?,
        PowerAction::NetworkBoot => {
            match desk.ask(Command::set_boot(BootFlags::network_once(efi))).await {
                Ok(_) => {}
                // A machine whose own order begins with the network boots all the same.
                Err(Failure::Command { completion, .. }) if completion != Completion::INSUFFICIENT_PRIVILEGE => {
                    notes.push(format!("the BMC did not take the boot device (network): {completion}"));
                }
                Err(failure) => return Err(failure),
            }
            let to = if is_on(&desk).await? { Control::Cycle } else { Control::On };
            switch(&desk, to).await?;
        }
    }
    Ok(Ran::Accepted { notes })
}

async fn is_on(desk: &Desk) -> Result<bool, Failure> {
    Ok(matches!(desk.ask(Command::ChassisStatus).await?, Reply::Chassis { on: true }))
}

/// Switches. A BMC that refuses what is so already is content; one that cannot cycle resets (only that is mandatory, section 28.3).
async fn switch(desk: &Desk, to: Control) -> Result<(), Failure> {
    let failed = match desk.ask(Command::ChassisControl(to)).await {
        Ok(_) => return Ok(()),
        Err(failed) => failed,
    };
    let Failure::Command { completion, .. } = &failed else { return Err(failed) };
    match (to, *completion) {
        (Control::Cycle, Completion::INVALID_FIELD) => {
            desk.ask(Command::ChassisControl(Control::Reset)).await.map(drop)
        }
        (Control::Cycle, Completion::NOT_IN_PRESENT_STATE) if !is_on(desk).await? => {
            desk.ask(Command::ChassisControl(Control::On)).await.map(drop)
        }
        (Control::On | Control::Off, Completion::NOT_IN_PRESENT_STATE) if is_on(desk).await? == (to == Control::On) => {
            Ok(())
        }
        _ => Err(failed),
    }
}
